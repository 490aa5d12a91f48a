"use strict";
// Conveniences only: every page works without this file.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const secure = location.protocol === "https:" ? "; Secure" : "";
if (zone) document.cookie = `zone=${zone}; SameSite=Lax; Path=/; Max-Age=31536000${secure}`;

document.documentElement.classList.add("scripted");
const search = document.querySelector("[data-search]");
document.querySelector("[role=alert], [aria-invalid=true]")?.focus();

// On a phone the menu scrolls sideways: show where we are.
const current = document.querySelector(".side nav [aria-current]");
if (current) current.closest("nav").scrollLeft = current.offsetLeft - 48;

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [popover]");
  if (event.key === "/" && search && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && event.target === search) {
    if (search.value) search.value = "";
    else search.blur();
  }
});

// Empty fields need not stand in the address.
document.addEventListener("formdata", (event) => {
  if (event.target.method !== "get") return;
  for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
});

// A double click sends a form once.
const sent = new Set();
const enable = () => sent.forEach((button) => (button.disabled = !sent.delete(button)));
document.addEventListener("submit", ({ target: form }) => {
  if (form.method !== "post") return;
  for (const button of form.elements) if (button.type === "submit" && !button.disabled) sent.add(button);
  setTimeout(() => sent.forEach((button) => (button.disabled = true))); // later, so that the pressed button is sent, too
  setTimeout(enable, 3000);
});
addEventListener("pageshow", enable);

document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-autosubmit]")) target.form.requestSubmit();
  if (target.matches("[data-pick-all]"))
    for (const box of target.closest("table").querySelectorAll(".pick input")) box.checked = target.checked;
});
for (const box of document.querySelectorAll("[data-pick-all]")) box.closest("label").hidden = false;

for (const button of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.lastChild.data = "Copied";
  });
}
