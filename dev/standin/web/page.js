// What the page's places share: elements, and the line that says what happens.
const message = document.getElementById("message");

export function say(text, fault = false) {
  message.textContent = text;
  message.classList.toggle("fault", fault);
}

// What was said meanwhile stays.
export function unsay(text) {
  if (message.textContent === text) say("");
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
