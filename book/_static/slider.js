// The two pictures of a cell tagged before-after lie over each other; a slider moves the line between them.
document.addEventListener("DOMContentLoaded", () => {
  for (const output of document.querySelectorAll(".tag_before-after .cell_output")) {
    const pictures = [...output.querySelectorAll("img")];
    const labels = [...output.querySelectorAll("p > em:only-child")];
    if (pictures.length !== 2 || labels.length !== 2) continue;

    const range = document.createElement("input");
    range.type = "range";
    range.step = "any";
    range.setAttribute("aria-label", "Line between before, on its left, and after, on its right");

    const slider = document.createElement("div");
    slider.className = "slider";
    labels[0].parentElement.before(slider);
    for (const [index, label] of labels.entries()) {
      label.parentElement.remove();
      slider.append(label, pictures[index]);
    }
    slider.append(range);

    const show = () => {
      slider.style.setProperty("--line", `${range.value}%`);
      range.setAttribute("aria-valuetext", `${Math.round(range.value)} % before`);
    };
    const follow = (event) => {
      const { left, width } = pictures[0].getBoundingClientRect();
      range.value = (100 * (event.clientX - left)) / width;
      show();
    };
    range.addEventListener("input", show);
    let start, following;
    for (const picture of pictures) {
      picture.draggable = false;
      picture.addEventListener("click", follow);
      picture.addEventListener("pointerdown", (event) => {
        picture.setPointerCapture(event.pointerId);
        start = event;
        following = event.pointerType === "mouse";
      });
      picture.addEventListener("pointermove", (event) => {
        if (!picture.hasPointerCapture(event.pointerId)) return;
        // A finger that goes up or down scrolls the page, and arrives here too before it does.
        following ||= Math.abs(event.clientX - start.clientX) > Math.abs(event.clientY - start.clientY);
        if (following) follow(event);
      });
    }
    show();
  }
});
