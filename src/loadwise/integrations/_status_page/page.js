"use strict";
// The server renders; this puts what it sends in place of what is shown, and leaves alone what is
// the same, so that focus, selection and scrolling stay.
(() => {
  const main = document.getElementById("fleet");
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  const said = document.getElementById("said");
  const SLOW = 3500;
  let source = null, paused = false, heard = Date.now();

  const sync = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh.cloneNode(true));
      return;
    }
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.isEqualNode(fresh)) return;
    for (const {name, value} of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const {name} of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    syncChildren(old, fresh);
  };

  const syncChildren = (old, fresh) => {
    const keyed = new Map();
    for (const child of old.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const key = next.dataset?.key;
      const match = key ? keyed.get(key) : at && !at.dataset?.key ? at : null;
      if (!match) {
        old.insertBefore(next.cloneNode(true), at);
        continue;
      }
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      sync(match, next);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  const show = (html) => {
    heard = Date.now();
    if (paused) return;
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const focused = document.activeElement;
    syncChildren(main, holder.content);
    if (focused !== document.activeElement && focused.isConnected) focused.focus({preventScroll: true});
    document.title = main.querySelector("[data-title]")?.dataset.title ?? document.title;
    tell();
  };

  const tell = () => {
    const late = Date.now() - heard;
    const state = paused ? "paused" : late > SLOW + interval() ? "late" : "on";
    live.dataset.state = state;
    live.textContent = state === "paused" ? "paused" : state === "on" ? "live"
      : `no news for ${Math.round(late / 1000)} s, trying again`;
  };

  const interval = () => 1000 * Number(main.querySelector("[data-interval]")?.dataset.interval ?? 1);

  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("events" + location.search);
    source.onmessage = (event) => show(event.data);
    source.onerror = () => {
      // A browser tries again by itself, but not after an answer such as 502.
      if (source.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(open, 2000);
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    tell();
  });
  document.addEventListener("visibilitychange", () => {
    heard = Date.now();
    if (document.hidden) close(); else open();
  });

  // An action is a plain form; sent from here, the page and the token stay.
  const form = document.getElementById("actions");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (!button) return;
    try {
      const answer = await fetch(button.formAction, {
        method: "POST", body: new URLSearchParams(new FormData(form)),
      });
      const text = new DOMParser().parseFromString(await answer.text(), "text/html");
      said.textContent = text.querySelector("[data-said]")?.textContent ?? `refused: ${answer.status}`;
      said.dataset.state = answer.ok ? "done" : "refused";
      if (answer.status === 403) document.getElementById("token").focus();
    } catch (error) {
      said.textContent = `not sent: ${error.message}`;
      said.dataset.state = "refused";
    }
  });

  setInterval(tell, 1000);
  open();
  tell();
})();
