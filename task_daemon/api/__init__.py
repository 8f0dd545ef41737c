"""The REST interface: reads and checks requests, asks the TaskManager, writes answers. The only room that imports tornado.web."""
