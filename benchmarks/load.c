/* A lean HTTP/1.1 client over a Unix socket that keeps a server busy and says how it went, as one line of JSON.

   load SOCKET [--connections N] [--seconds S | --count N] [--batch N] [--task JSON] [--prefix TEXT] [--path PATH] [--get]
               [--pace N] [--status N]

   Each connection is kept and sends its next request when the answer to the last one has come. Every task has an `id` of its
   own: `@` in the JSON of --task is replaced by PREFIX-number. --batch N wraps N of them into {"tasks": [...]}. --get asks for
   PATH without a body. --pace N sends N requests a second in all, on a fixed grid; a latency then counts from when the request
   was due, so a server that stalls does not hide it. Ends after S seconds (2) or N requests. Exit code 1: an answer had another
   status than --status (202), or a connection broke; `error` shows the first. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEAD 16384 /* bytes of an answer's header block */
#define MOST 4096  /* connections */
#define PATIENCE 30.0 /* seconds without any answer */

struct connection {
    int fd, waiting;      /* waiting: a request is under way */
    char *out;            /* the request */
    size_t length, sent, room;
    char head[HEAD + 1];
    size_t have;          /* bytes in `head` */
    int64_t left;         /* bytes of the body still to come; -1: the header block is not complete */
    double due;           /* when its next request is sent; of the one under way: from when its latency counts */
};

static const char *path = "/v1/tasks", *task = "{\"id\":\"@\",\"action\":\"simulated\",\"zone\":\"sim\"}", *prefix = "t";
static long connections = 1, count = 0, batch = 1, status = 202;
static double seconds = 2.0, pace = 0.0;
static int get = 0;
static uint64_t numbers, started, answered, wrong, bytes;
static char first_error[256];
static uint32_t *latency; /* units of 100 ns */
static size_t latencies;
static struct connection *all;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void die(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fprintf(stderr, "load: cannot ");
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    exit(2);
}

static void *need(void *memory) {
    if (memory == NULL) die("go on: out of memory");
    return memory;
}

static void put(struct connection *c, const char *text, size_t length) {
    while (c->length + length > c->room) c->out = need(realloc(c->out, c->room = c->room ? 2 * c->room : 4096));
    memcpy(c->out + c->length, text, length);
    c->length += length;
}

static void put_task(struct connection *c) {
    char number[32];
    const char *at, *rest = task;
    int digits = snprintf(number, sizeof number, "-%llu", (unsigned long long)numbers++);
    for (; (at = strchr(rest, '@')) != NULL; rest = at + 1) {
        put(c, rest, (size_t)(at - rest));
        put(c, prefix, strlen(prefix));
        put(c, number, (size_t)digits);
    }
    put(c, rest, strlen(rest));
}

static void compose(struct connection *c) {
    static const size_t margin = 512; /* room before the body for the header block */
    char head[512];
    c->length = margin;
    if (c->room < margin) c->out = need(realloc(c->out, c->room = 4096));
    if (!get && batch > 1) {
        put(c, "{\"tasks\":[", 10);
        for (long n = 0; n < batch; n++) {
            if (n) put(c, ",", 1);
            put_task(c);
        }
        put(c, "]}", 2);
    } else if (!get) put_task(c);
    int size = get ? snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: d\r\n\r\n", path)
                   : snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                              path, c->length - margin);
    if (size < 0 || (size_t)size >= sizeof head) die("ask for %.60s...: the path is too long", path);
    memcpy(c->out + margin - size, head, (size_t)size);
    c->sent = margin - (size_t)size; /* from there on it is sent */
}

static void watch(int poller, struct connection *c, int writing, int change) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, change, c->fd, &event) < 0) die("watch a connection: %s", strerror(errno));
}

static void broken(const char *why) {
    wrong++;
    if (!*first_error) snprintf(first_error, sizeof first_error, "%s", why);
}

static int flush_out(int poller, struct connection *c) {
    while (c->sent < c->length) {
        ssize_t done = send(c->fd, c->out + c->sent, c->length - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0 && errno == EAGAIN) {
            watch(poller, c, 1, EPOLL_CTL_MOD);
            return 1;
        }
        if (done < 0) return 0;
        c->sent += (size_t)done;
    }
    return 1;
}

static int begin(int poller, struct connection *c) {
    compose(c);
    c->have = 0;
    c->left = -1;
    c->waiting = 1;
    if (pace == 0) c->due = now();
    started++;
    return flush_out(poller, c);
}

/* 1: the answer is complete; 0: more is to come; -1: it makes no sense or the connection has ended. */
static int take(struct connection *c) {
    static char sink[1 << 18];
    for (;;) {
        ssize_t got = c->left < 0 ? recv(c->fd, c->head + c->have, HEAD - c->have, MSG_DONTWAIT)
                                  : recv(c->fd, sink, c->left < (int64_t)sizeof sink ? (size_t)c->left : sizeof sink, MSG_DONTWAIT);
        if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : (broken(strerror(errno)), -1);
        if (got == 0) return broken("the server closed the connection"), -1;
        bytes += (uint64_t)got;
        if (c->left < 0) {
            c->have += (size_t)got;
            c->head[c->have] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (end == NULL) {
                if (c->have == HEAD) return broken("the header block is too long"), -1;
                continue;
            }
            char *length = strcasestr(c->head, "\r\ncontent-length:");
            int64_t body = length != NULL && length < end ? atoll(length + 17) : 0;
            c->left = body - (int64_t)(c->have - (size_t)(end + 4 - c->head));
            if (c->left < 0) return broken("the answer is longer than it says"), -1;
        } else c->left -= got;
        if (c->left == 0) return 1;
    }
}

static void record(struct connection *c) {
    static size_t room;
    if (latencies == room) latency = need(realloc(latency, (room = room ? 2 * room : 65536) * sizeof *latency));
    latency[latencies++] = (uint32_t)((now() - c->due) * 1e7);
    answered++;
    if (strncmp(c->head, "HTTP/1.1 ", 9) != 0 || atol(c->head + 9) != status) {
        char *end = strstr(c->head, "\r\n\r\n"), text[200];
        snprintf(text, sizeof text, "%.40s %.150s", c->head, end ? end + 4 : "");
        broken(text);
    }
    c->waiting = 0;
    if (pace > 0) c->due += (double)connections / pace;
}

static int rising(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double at(double share) { return latencies ? latency[(size_t)((double)(latencies - 1) * share)] / 1e4 : 0; }

static void dial(int poller, const char *server, double from) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(server) >= sizeof address.sun_path) die("connect to %s: the path is too long", server);
    strcpy(address.sun_path, server);
    for (long n = 0; n < connections; n++) {
        all[n].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (all[n].fd < 0 || connect(all[n].fd, (struct sockaddr *)&address, sizeof address) < 0)
            die("connect to %s: %s", server, strerror(errno));
        all[n].due = from + (pace > 0 ? (double)n / pace : 0);
        watch(poller, &all[n], 0, EPOLL_CTL_ADD);
    }
}

static void options(int argc, char **argv) {
    static const struct option known[] = {{"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"count", 1, 0, 'n'},
        {"batch", 1, 0, 'b'}, {"task", 1, 0, 't'}, {"prefix", 1, 0, 'i'}, {"path", 1, 0, 'p'}, {"pace", 1, 0, 'r'},
        {"status", 1, 0, 'e'}, {"get", 0, 0, 'g'}, {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (option) {
        case 'c': connections = atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': count = atol(optarg); break;
        case 'b': batch = atol(optarg); break;
        case 't': task = optarg; break;
        case 'i': prefix = optarg; break;
        case 'p': path = optarg; break;
        case 'r': pace = atof(optarg); break;
        case 'e': status = atol(optarg); break;
        case 'g': get = 1; break;
        default: exit(2);
        }
    if (optind != argc - 1) die("start: name one socket");
    if (connections < 1 || connections > MOST) die("open %ld connections: 1 to %d are possible", connections, MOST);
    if (batch < 1) die("send batches of %ld: at least 1 is possible", batch);
}

static void show(double took) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latency, latencies, sizeof *latency, rising);
    printf("{\"requests\":%llu,\"tasks\":%llu,\"seconds\":%.6f,\"rate\":%.3f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"p999_ms\":%.4f,\"max_ms\":%.4f,\"bytes\":%llu,\"cpu_seconds\":%.6f,\"wrong\":%llu,\"error\":\"",
           (unsigned long long)answered, (unsigned long long)(get ? 0 : answered * (uint64_t)batch), took,
           (double)(answered * (uint64_t)(get ? 1 : batch)) / took, at(0.5), at(0.9), at(0.99), at(0.999), at(1.0),
           (unsigned long long)bytes, cpu, (unsigned long long)wrong);
    for (const char *c = first_error; *c; c++)
        if (*c >= ' ' && *c != '"' && *c != '\\') putchar(*c);
        else putchar(' ');
    printf("\"}\n");
}

int main(int argc, char **argv) {
    options(argc, argv);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    all = need(calloc((size_t)connections, sizeof *all));
    dial(poller, argv[optind], now());
    double from = now(), last = from;
    struct epoll_event events[256];
    uint64_t under_way = 0;
    int over = 0, changed = 1;
    for (;;) {
        double at = now(), next = at + 1.0;
        if (pace > 0 || changed) {
            for (long n = 0; n < connections; n++) {
                struct connection *c = &all[n];
                if (c->waiting || c->fd < 0) continue;
                if (count ? started >= (uint64_t)count : at >= from + seconds) { over = 1; continue; }
                if (pace > 0 && c->due > at) { next = c->due < next ? c->due : next; continue; }
                if (begin(poller, c)) under_way++;
                else { broken("a connection broke while sending"); close(c->fd); c->fd = -1; }
            }
            changed = 0;
        }
        if (under_way == 0 && (over || wrong)) break;
        if (at - last > PATIENCE) { broken("no answer came for 30 s"); break; }
        struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)((next - at) * 1e9)};
        if (next - at >= 1.0) pause = (struct timespec){.tv_sec = 1};
        int ready = epoll_pwait2(poller, events, 256, &pause, NULL);
        for (int n = 0; n < ready; n++) {
            struct connection *c = events[n].data.ptr;
            if (c->fd < 0) continue;
            int ok = 1;
            if (events[n].events & EPOLLOUT) {
                ok = flush_out(poller, c);
                if (ok && c->sent == c->length) watch(poller, c, 0, EPOLL_CTL_MOD);
            }
            int done = ok ? take(c) : -1;
            if (done == 0) continue;
            under_way -= (uint64_t)c->waiting;
            last = now();
            if (done < 0) { close(c->fd); c->fd = -1; c->waiting = 0; continue; }
            record(c);
            if (pace == 0 && !(count ? started >= (uint64_t)count : last >= from + seconds)) {
                if (begin(poller, c)) under_way++;
                else { broken("a connection broke while sending"); close(c->fd); c->fd = -1; }
            } else changed = 1;
        }
    }
    show(last - from);
    return wrong ? 1 : 0;
}
