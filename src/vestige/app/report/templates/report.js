"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const kept = { opacity: "85", grey: true, wide: false, lens: false };

  // Viewer: one map at a time over the picture.
  function choose(viewer, value) {
    const radio = one(`.maps input[value="${value}"]`, viewer);
    if (radio) {
      radio.checked = true;
      show(viewer);
    }
  }
  function show(viewer) {
    const radio = one(".maps input:checked", viewer);
    if (!radio) return;
    const frame = one(".frame", viewer);
    for (const overlay of all(".overlay", frame)) {
      overlay.hidden = overlay.dataset.map !== radio.value;
      overlay.style.opacity = Number(kept.opacity) / 100;
    }
    frame.classList.toggle("grey", kept.grey && radio.value !== "0");
    viewer.closest(".columns").classList.toggle("large", kept.wide);
    one(".caption", viewer).textContent = radio.dataset.caption;
    one(".legend", viewer).hidden = radio.value === "0";
  }
  function start(root) {
    for (const viewer of all(".viewer", root)) {
      const [opacity, grey, wide] = [".opacity", ".grey[type]", ".wide"].map((s) => one(s, viewer));
      if (!opacity) continue;
      opacity.value = kept.opacity;
      grey.checked = kept.grey;
      wide.checked = kept.wide;
      viewer.addEventListener("input", () => {
        Object.assign(kept, { opacity: opacity.value, grey: grey.checked, wide: wide.checked });
        show(viewer);
      });
      const frame = one(".frame", viewer);
      frame.addEventListener("pointerdown", () => frame.classList.add("bare"));
      for (const end of ["pointerup", "pointerleave", "pointercancel"])
        frame.addEventListener(end, () => frame.classList.remove("bare"));
      frame.addEventListener("dragstart", (event) => event.preventDefault());
      show(viewer);
    }
    for (const viewer of all(".viewer", root)) magnify(viewer);
    for (const button of all(".strip button", root))
      button.addEventListener("click", () =>
        document.getElementById(button.dataset.shot).scrollIntoView({ block: "start" }));
    for (const jump of all(".jump", root))
      jump.addEventListener("click", () =>
        one(".stage", jump.closest(".picture")).scrollIntoView({ block: "nearest" }));
  }

  // Magnifier: picture and chosen map, enlarged under the pointer.
  const ZOOM = 4;
  function magnify(viewer) {
    const frame = one(".frame", viewer);
    const base = one(".base", frame);
    const box = one(".lens-on", viewer);
    if (!box) return;
    box.checked = kept.lens;
    const lens = document.createElement("div");
    lens.className = "lens";
    lens.hidden = true;
    frame.append(lens);
    box.addEventListener("change", () => (kept.lens = box.checked));
    frame.addEventListener("pointermove", (event) => {
      lens.hidden = !box.checked;
      if (!box.checked) return;
      const area = base.getBoundingClientRect();
      const [x, y] = [event.clientX - area.left, event.clientY - area.top];
      const map = frame.classList.contains("bare") ? null : one(".overlay:not([hidden])", frame);
      const half = lens.clientWidth / 2;
      lens.style.left = `${x}px`;
      lens.style.top = `${y}px`;
      lens.replaceChildren(
        ...[base, map].filter(Boolean).map((layer) => {
          const part = new Image();
          part.src = layer.src;
          part.style.opacity = layer.style.opacity;
          part.style.width = `${area.width * ZOOM}px`;
          part.style.height = `${area.height * ZOOM}px`;
          part.style.left = `${half - x * ZOOM}px`;
          part.style.top = `${half - y * ZOOM}px`;
          return part;
        }),
      );
    });
    frame.addEventListener("pointerleave", () => (lens.hidden = true));
  }

  // Folder: a filtered list, and one picture at a time.
  const list = one(".rows");
  const rows = list ? all("li", list) : [];
  const opened = one("#opened");
  let current = null;
  const visible = () => all("li:not([hidden])", list);
  const row = (index) => rows.find((r) => r.dataset.order === String(index));

  function filter() {
    const words = one("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = one("#level").value;
    const kind = one("#kind")?.value ?? "";
    let count = 0;
    for (const r of rows) {
      r.hidden =
        (level && r.dataset.level !== level) ||
        (kind && !r.dataset.kinds.split(" ").includes(kind)) ||
        !words.every((w) => r.dataset.name.includes(w));
      count += !r.hidden;
    }
    one("#count").textContent = count === rows.length ? `${count} shown` : `${count} of ${rows.length} shown`;
    one("#nothing").hidden = count > 0;
  }
  function sort() {
    const key = one("#sort").value;
    const by = {
      worst: (a, b) => a.dataset.worst - b.dataset.worst,
      order: (a, b) => a.dataset.order - b.dataset.order,
      name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }),
      p: (a, b) => b.dataset.p - a.dataset.p || a.dataset.order - b.dataset.order,
    }[key];
    list.append(...[...rows].sort(by));
  }
  function neighbour(step) {
    const shown = visible();
    return shown[shown.indexOf(row(current)) + step];
  }
  function go(step) {
    const next = neighbour(step);
    if (next) location.hash = `#p${next.dataset.order}`;
  }
  function route() {
    const match = /^#p(\d+)$/.exec(location.hash);
    const template = match && document.getElementById(`t${match[1]}`);
    const slot = one(".slot", opened);
    const last = current;
    slot.replaceChildren();
    one("#overview").hidden = Boolean(template);
    opened.hidden = !template;
    current = template ? match[1] : null;
    if (!template) {
      const origin = last && row(last);
      if (origin) {
        one("a", origin).focus();
        origin.scrollIntoView({ block: "center" });
      }
      return;
    }
    slot.append(template.content.cloneNode(true));
    start(slot);
    const shown = visible();
    const place = shown.indexOf(row(current));
    one(".place", opened).textContent = place < 0 ? "" : `${place + 1} of ${shown.length}`;
    one(".previous", opened).disabled = !neighbour(-1) || place < 0;
    one(".next", opened).disabled = !neighbour(1);
    scrollTo(0, 0);
    one("h1", slot).focus({ preventScroll: true });
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches('input[type="search"], select, textarea');
    const viewer = all(".viewer").find((v) => v.offsetParent && v.getBoundingClientRect().bottom > 80);
    if (/^[0-9]$/.test(event.key) && !typing && viewer && one(".maps", viewer)) {
      const same = one(".maps input:checked", viewer).value === event.key;
      choose(viewer, same ? "0" : event.key);
    } else if (opened && current) {
      if (event.key === "Escape") location.hash = "#top";
      if (event.target.matches("input, select")) return;
      if (event.key === "ArrowLeft") go(-1);
      if (event.key === "ArrowRight") go(1);
    }
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const d of folded) d.open = true;
  });
  addEventListener("afterprint", () => {
    for (const d of folded) d.open = false;
  });
  one("#print").addEventListener("click", () => print());

  start(document);
  if (opened) {
    if (rows.length) {
      one("#search").addEventListener("input", filter);
      for (const s of ["#level", "#kind"]) one(s)?.addEventListener("change", filter);
      one("#sort").addEventListener("change", sort);
      filter();
    }
    one(".previous", opened).addEventListener("click", () => go(-1));
    one(".next", opened).addEventListener("click", () => go(1));
    addEventListener("hashchange", route);
    route();
  }
})();
