// A click on a figure shows it as large as the window allows; Escape or another click puts it back.
document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", "Figure, enlarged");
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);

  const close = document.createElement("button");
  close.textContent = "×";
  close.setAttribute("aria-label", "Close");

  for (const image of document.querySelectorAll("article figure img:not(.slider img)")) {
    const button = document.createElement("button");
    button.className = "enlarge";
    button.type = "button";
    button.title = "Enlarge";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => {
      dialog.replaceChildren(image.cloneNode(), close);
      dialog.showModal();
    });
  }
});
