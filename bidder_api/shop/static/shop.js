// What a shop's page reports: what rendered, what was seen for a second, what was clicked, and what the visitor did.
// No library and no state but the page; a report that cannot be sent is tried again with the same id.
"use strict";

(() => {
  const { siteKey, visitor, added } = document.body.dataset;
  document.documentElement.classList.add("scripted");

  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
  const beacon = (type, tile) => ({
    event_id: newId(), type, beacon_token: tile.dataset.beacon, occurred_at: new Date().toISOString(),
  });

  let waiting = [];
  let timer = 0;
  const report = (events) => {
    waiting.push(...events);
    if (!timer) timer = setTimeout(flush, 50);
  };
  async function flush() {
    timer = 0;
    const events = waiting.splice(0, 100);
    if (!events.length) return;
    try {
      const answer = await fetch("/v1/events", {
        method: "POST", keepalive: true, headers: { "Content-Type": "text/plain" }, body: JSON.stringify({ events }),
      });
      await answer.text();
      if (answer.status === 503 || answer.status === 429) throw new Error("busy");
    } catch {
      waiting.unshift(...events);
      timer = setTimeout(flush, 1000);
      return;
    }
    if (waiting.length) timer = setTimeout(flush, 50);
  }
  const reportLeaving = (events) => {
    const body = JSON.stringify({ events });
    if (!navigator.sendBeacon("/v1/events", new Blob([body], { type: "text/plain" }))) report(events);
  };

  const navigate = (action, more) => {
    if (!visitor || !siteKey) return;
    const event = { event_id: newId(), visitor_id: visitor, action, occurred_at: new Date().toISOString(), ...more };
    fetch("/v1/navigation", {
      method: "POST", keepalive: true,
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${siteKey}` },
      body: JSON.stringify({ events: [event], consent: { personalised: true } }),
    }).then((answer) => answer.text()).catch(() => {});
  };

  // An impression once it renders, a view once half of it was on screen for a second.
  const tiles = [...document.querySelectorAll(".tile[data-beacon]")];
  const seen = new WeakMap();
  const rendered = new WeakSet();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, intersectionRatio, isIntersecting } of entries) {
      if (isIntersecting && !rendered.has(target)) {
        rendered.add(target);
        report([beacon("impression", target)]);
      }
      clearTimeout(seen.get(target));
      if (intersectionRatio < 0.5) continue;
      seen.set(target, setTimeout(() => {
        if (document.visibilityState !== "visible") return;
        watcher.unobserve(target);
        report([beacon("view", target)]);
      }, 1000));
    }
  }, { threshold: [0, 0.5] });
  tiles.forEach((tile) => watcher.observe(tile));

  // A click on a tile, reported by a beacon that outlives the page. A tile is clicked once.
  const clicked = new WeakSet();
  const onOpen = (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || !event.target.closest(".open") || clicked.has(tile) || event.button > 1) return;
    clicked.add(tile);
    reportLeaving([...waiting.splice(0), beacon("click", tile)]);
    navigate("select_item", { product_id: tile.dataset.product });
  };
  document.addEventListener("click", onOpen);
  document.addEventListener("auxclick", onOpen);
  addEventListener("pagehide", () => { if (waiting.length) reportLeaving(waiting.splice(0)); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-add]");
    if (!button) return;
    navigate("add_to_cart", { product_id: button.dataset.add, quantity: 1 });
    if (!button.classList.contains("wide")) button.textContent = "✓";
    else button.textContent = added;
    button.classList.add("done");
    button.setAttribute("aria-label", added);
  });

  document.querySelector("[data-submits]")?.addEventListener("change", (event) => event.target.form.requestSubmit());

  const viewed = document.querySelector("[data-viewed]");
  const listed = document.querySelector("[data-category]:not([data-category=''])");
  if (viewed) navigate("view_item", { product_id: viewed.dataset.viewed });
  if (listed) navigate("view_item_list", { category_id: listed.dataset.category });
})();
