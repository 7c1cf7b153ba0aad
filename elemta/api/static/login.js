/** Logs in, by a token or by the one-time link that the server printed. */

import * as api from "./api.js";
import "./theme.js";

const form = document.getElementById("login");
const problem = document.getElementById("problem");
const given = new URLSearchParams(location.hash.slice(1));

// It is a secret: not for the history, nor for who looks over a shoulder.
history.replaceState(null, "", location.pathname);

/** Where to go on; only a page of the dashboard, never another site. */
function onward() {
  const next = given.get("next") ?? "";
  if (next === "/docs") return next;
  return next.startsWith("#/") ? `/${next}` : "/";
}

async function enter(secret) {
  problem.hidden = true;
  form.inert = true;
  try {
    await api.post("/v1/login", secret);
    location.replace(onward());
  } catch (error) {
    problem.textContent = error.text ?? String(error);
    problem.hidden = false;
    form.inert = false;
    form.elements.token.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  enter({ token: form.elements.token.value.trim() });
});

if (given.has("once")) enter({ once: given.get("once") });
else form.elements.token.focus();
