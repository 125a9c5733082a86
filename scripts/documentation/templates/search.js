// Search over SECTIONS (search-index.js): sections that hold every word, those with the words in their heading first.
const field = document.getElementById("search"), results = document.getElementById("results");
const excerpt = (text, at) => {  // from 40 characters before the find, in whole words
  const begin = at > 40 ? text.indexOf(" ", at - 40) + 1 : 0, end = text.indexOf(" ", at + 100);
  return (begin ? "... " : "") + text.slice(begin, end < 0 ? undefined : end) + (end < 0 ? "" : " ...");
};
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = !words.length ? [] : SECTIONS.map((section) => {
    const title = section.title.toLowerCase(), text = section.text.toLowerCase();
    const score = words.every((word) => title.includes(word) || text.includes(word))
      ? words.filter((word) => title.includes(word)).length + 1 : 0;
    return { section, score, at: text.indexOf(words[0]) };
  }).filter((each) => each.score).sort((one, other) => other.score - one.score).slice(0, 20);
  results.replaceChildren(...found.map(({ section, at }) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = section.url;
    link.textContent = `${section.page}: ${section.title}`;
    item.append(link, ` ${excerpt(section.text, Math.max(at, 0))}`);
    return item;
  }));
  results.hidden = !words.length;
  if (words.length && !found.length) results.textContent = "nothing found";
});
