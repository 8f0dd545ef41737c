// A question that must be answered before something is changed: a modal dialog, which keeps the focus and gives it back.
import { html, render } from "./html.js";

export function confirm({ title, text, yes, danger = false }) {
  const before = document.activeElement;
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "ask-title");
  dialog.setAttribute("aria-describedby", "ask-text");
  document.body.append(dialog);
  render(
    html`<form method="dialog" onSubmit=${(event) => { event.preventDefault(); dialog.close(event.submitter?.value || "no"); }}>
      <h2 id="ask-title">${title}</h2><p id="ask-text">${text}</p>
      <div class="buttons"><button value="no" autofocus>Keep it as it is</button><button value="yes" class=${danger ? "danger" : "main"}>${yes}</button></div>
    </form>`,
    dialog,
  );
  dialog.showModal();
  return new Promise((answered) => {
    dialog.addEventListener("close", () => {
      const answer = dialog.returnValue === "yes";
      dialog.remove();
      if (before?.isConnected) before.focus();
      answered(answer);
    });
  });
}
