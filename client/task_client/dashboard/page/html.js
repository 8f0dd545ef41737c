// The one place where the template language and the library that renders it meet.
import { Component, createRef, h, render } from "./libraries/preact.mjs";
import htm from "./libraries/htm.mjs";

export const html = htm.bind(h);
export { Component, createRef, render };
