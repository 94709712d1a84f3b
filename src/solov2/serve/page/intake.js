/** The ways a picture comes in: chosen, photographed, dropped or pasted. */

const $ = (id) => document.getElementById(id);

/**
 * @param {(file: File) => void} take
 * @param {(title: string, advice: string) => void} complain that there was no picture
 */
export function listenForPictures(take, complain) {
  listenToButtons(take);
  listenToDrops(take, complain);
  document.addEventListener("paste", ({ clipboardData }) => {
    const file = pictureAmong(clipboardData);
    if (file) take(file);
    else complain("There is no picture to paste", "Copy a picture itself, not its address or its file name.");
  });
}

function listenToButtons(take) {
  const opens = { choose: "file", open: "file", photograph: "camera" };
  for (const [button, input] of Object.entries(opens)) $(button).addEventListener("click", () => $(input).click());
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", ({ target }) => {
      const [file] = target.files;
      target.value = ""; // the same file may be chosen again
      if (file) take(file);
    });
  }
}

function listenToDrops(take, complain) {
  const hasFiles = ({ dataTransfer }) => [...(dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("curtain").hidden = !hasFiles(event);
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) $("curtain").hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // the browser would leave the page for the picture
    $("curtain").hidden = true;
    const file = pictureAmong(event.dataTransfer);
    if (file) take(file);
    else complain("Nothing to look at in that", "Please save the picture first, then drop the file here.");
  });
}

/** The first picture, or the first file of any kind, so that the refusal can name it. Null where there is no file. */
function pictureAmong(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find(({ type }) => type.startsWith("image/")) ?? files[0] ?? null;
}
