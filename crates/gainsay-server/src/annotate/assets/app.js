// Keys, time on the question, drafts, ranking. Without this script the pages still work.
"use strict";
(() => {
  const form = document.getElementById("answer");
  const typing = (el) =>
    el.matches("textarea, select, input:not([type=radio]):not([type=checkbox])");

  // One more, and none after the last.
  const raise = (radios) => {
    const next = radios.findIndex((radio) => radio.checked) + 1;
    radios.forEach((radio, i) => (radio.checked = i === next));
    radios[0].dispatchEvent(new Event("change", { bubbles: true }));
  };

  const use = (el) => {
    if (el.matches("textarea, select")) {
      el.focus();
    } else if (el.matches("fieldset")) {
      raise([...el.querySelectorAll("input")]);
    } else if (el.type === "radio" && el.checked) {
      el.checked = false;
      el.dispatchEvent(new Event("change", { bubbles: true }));
    } else if (!el.disabled) {
      el.click();
    }
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    // A key that is held down must not answer the next question too.
    if (event.repeat && !typing(event.target)) return event.preventDefault();
    const target = event.target;
    if (event.key === "Escape") return target.blur();
    if (event.key === "Enter" && target.dataset && target.dataset.submit && target.value) {
      event.preventDefault();
      return document.getElementById(target.dataset.submit).click();
    }
    if (typing(target)) return;
    // Enter and space on a button, link or radio do what they always do.
    if ((event.key === "Enter" || event.key === " ") && target.closest("a, button, summary, input")) return;
    if (ranking && ranking(event.key)) return event.preventDefault();
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const el = [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === name);
    if (el) {
      event.preventDefault();
      use(el);
    }
  });

  // A link that is copied to somebody needs the host that this browser used.
  for (const link of document.querySelectorAll("a[data-absolute]")) link.textContent = link.href;

  // Time counts while the page is visible.
  let spent = 0;
  let since = document.hidden ? null : performance.now();
  const pause = () => {
    if (since !== null) spent += performance.now() - since;
    since = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) pause();
    else since = performance.now();
  });

  if (form) {
    let timer = null;
    let sent = false;
    const save = () => {
      timer = null;
      fetch(form.dataset.draft, { method: "POST", body: new URLSearchParams(new FormData(form)), keepalive: true })
        // 409: the question is not in this person's hands any more.
        .then(({ status }) => (document.getElementById("lost").hidden = status !== 409))
        .catch(() => {});
    };
    const changed = () => {
      clearTimeout(timer);
      timer = setTimeout(save, 300);
    };
    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    addEventListener("pagehide", () => {
      if (timer && !sent) navigator.sendBeacon(form.dataset.draft, new URLSearchParams(new FormData(form)));
    });
    form.addEventListener("submit", () => {
      sent = true;
      clearTimeout(timer);
      pause();
      form.elements.seconds.value = (spent / 1000).toFixed(1);
    });
  }

  const box = document.querySelector(".ranking");
  const ranking = box ? rank(box) : null;

  function rank(box) {
    const cards = [...box.querySelectorAll(".rankable")];
    const inputs = cards.map((card) => card.querySelector("input"));
    const status = document.querySelector(".order");
    let order = []; // groups of tied indices, best first
    let tie = false;

    const fromInputs = () => {
      const ranks = inputs.map((input) => Number(input.value));
      const known = [...new Set(ranks.filter((r) => r > 0))].sort((a, b) => a - b);
      order = known.map((r) => ranks.flatMap((x, i) => (x === r ? [i] : [])));
    };
    const show = (write) => {
      if (write) {
        inputs.forEach((input) => (input.value = ""));
        order.forEach((group, place) => group.forEach((i) => (inputs[i].value = place + 1)));
        form.dispatchEvent(new Event("change"));
      }
      cards.forEach((card, i) => card.classList.toggle("placed", order.some((group) => group.includes(i))));
      const text = order.map((group) => group.map((i) => i + 1).join(" = ")).join("  >  ");
      status.textContent = text ? "Your order: " + text + (tie ? " = ?" : "") : "";
    };
    const place = (i) => {
      if (order.some((group) => group.includes(i))) return;
      if (tie && order.length) order[order.length - 1].push(i);
      else order.push([i]);
      tie = false;
    };
    inputs.forEach((input) => input.addEventListener("input", () => { fromInputs(); show(false); }));

    // A card is dragged by its handle, with a mouse or a finger. Its neighbors move out of the way:
    // the card itself stays in the document, so that its events keep coming.
    const drag = (card) => (event) => {
      const middle = (other) => {
        const { top, height } = other.getBoundingClientRect();
        return top + height / 2;
      };
      const move = ({ clientY: y }) => {
        if (y < 48) scrollBy(0, -16);
        if (y > innerHeight - 48) scrollBy(0, 16);
        for (let below; (below = card.nextElementSibling) && y > middle(below); ) card.before(below);
        for (let above; (above = card.previousElementSibling) && y < middle(above); ) card.after(above);
      };
      const stop = new AbortController(); // its signal ends all three listeners
      const end = () => {
        card.classList.remove("dragged");
        stop.abort();
        order = [...box.children].map((child) => [Number(child.dataset.index)]);
        tie = false;
        show(true);
      };
      event.preventDefault();
      card.classList.add("dragged");
      addEventListener("pointermove", move, stop);
      addEventListener("pointerup", end, stop);
      addEventListener("pointercancel", end, stop);
    };
    cards.forEach((card) => card.querySelector(".handle").addEventListener("pointerdown", drag(card)));

    fromInputs();
    show(false);
    const press = (key) => {
      const index = Number(key) - 1;
      if (key >= "1" && key <= "9" && index < cards.length) place(index);
      else if (key === "=") tie = order.length > 0;
      else if (key === "Backspace" && order.length) {
        const last = order[order.length - 1];
        last.pop();
        if (!last.length) order.pop();
        tie = false;
      } else return false;
      show(true);
      return true;
    };
    box.querySelectorAll(".plain").forEach((plain) => plain.remove());
    form.querySelectorAll("[hidden]").forEach((el) => (el.hidden = false));
    form.querySelectorAll("[data-rank]").forEach((el) => el.addEventListener("click", () => press(el.dataset.rank)));
    return press;
  }
})();
