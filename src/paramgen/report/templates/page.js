"use strict";
const root = document.documentElement, $ = (s) => document.querySelector(s);
$(".theme").onclick = () => {
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
};
document.querySelectorAll(".more-switch").forEach((button) => {
  button.onclick = () => {
    const all = button.closest("section").querySelector(".rows").classList.toggle("all");
    button.setAttribute("aria-expanded", all);
    button.textContent = all ? "Fewer figures" : "All figures";
  };
});
document.querySelectorAll(".tab").forEach((tab) => {
  tab.onclick = () => {
    document.querySelectorAll(".tab").forEach((other) => {
      other.setAttribute("aria-pressed", other === tab);
      document.getElementById(other.dataset.target).hidden = other !== tab;
    });
    document.getElementById(tab.dataset.target).dispatchEvent(new Event("shown", { bubbles: true }));
  };
});
document.querySelectorAll(".rows .sort").forEach((button) => {
  button.onclick = () => {
    const head = button.closest("th"), column = [...head.parentNode.children].indexOf(head), body = button.closest("table").tBodies[0];
    const text = button.dataset.type === "text", first = text ? "ascending" : "descending";
    const was = head.getAttribute("aria-sort"), now = was === first ? (text ? "descending" : "ascending") : first;
    head.parentNode.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", now);
    const sign = now === "ascending" ? 1 : -1, key = (tr) => tr.children[column].dataset.value;
    [...body.children].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (text ? x.localeCompare(y) : x - y);
    }).forEach((tr) => { tr.classList.remove("break"); body.append(tr); });
  };
});
let opener = null;
document.addEventListener("click", (e) => { opener = e.target.closest("[popovertarget]") || opener; }, true);
document.querySelectorAll("[popover]").forEach((box) => {
  box.addEventListener("toggle", (e) => {
    if (e.newState !== "open") return;
    const at = opener.getBoundingClientRect();
    box.style.left = Math.max(16, Math.min(at.left - 20, innerWidth - box.offsetWidth - 16)) + "px";
    box.style.top = Math.min(at.bottom + 8, innerHeight - box.offsetHeight - 16) + "px";
  });
});
document.querySelectorAll(".download").forEach((button) => {
  button.onclick = () => {
    const results = JSON.parse(button.closest("section").querySelector("script.results").textContent), link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(results, null, 1)], { type: "application/json" }));
    link.download = button.dataset.name || "results.json";
    link.click();
  };
});
