// All words of the page come from strings.LANGUAGE.json; numbers follow the language.

const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);

/** Load the words of a language, English where the app has none in it. */
export async function loadWords(language) {
  const english = await readJson("strings.en.json");
  if (!language || language === "en") return createWords(english, "en");
  try {
    return createWords({ ...english, ...(await readJson(`strings.${language}.json`)) }, language);
  } catch {
    return createWords(english, "en");
  }
}

/** Read a JSON file in the folder of the page. */
export async function readJson(name) {
  const response = await fetch(new URL(name, document.baseURI));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.json();
}

/** Create the functions that write text, numbers and times in a language. */
export function createWords(strings, language) {
  const round = (digits) => new Intl.NumberFormat(language, { maximumFractionDigits: digits });
  const [whole, tenth, precise] = [round(0), round(1), significant(language)];
  const [percent, fine] = [0, 1].map(
    (digits) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }),
  );
  const fill = (key, values = {}) => {
    const pattern = strings[key] ?? key;
    return pattern.replace(/\{(\w+)\}/g, (hole, name) => values[name] ?? hole);
  };
  return {
    language,
    direction: RIGHT_TO_LEFT.has(language.split("-")[0]) ? "rtl" : "ltr",
    has: (key) => key in strings,
    fill,
    whole: (value) => whole.format(value),
    tenth: (value) => tenth.format(value),
    number: (value) => (typeof value === "number" ? precise.format(value) : String(value)),
    // 99.96 % is not written as certainty, nor .04 % as impossible.
    percent: (share) => {
      if (!Number.isFinite(share)) return "";
      if (share > 0.999 && share < 1) return `> ${fine.format(0.999)}`;
      if (share > 0 && share < 0.001) return `< ${fine.format(0.001)}`;
      return (share < 0.01 || share > 0.99 ? fine : percent).format(share);
    },
    time: (ms) =>
      ms < 1000
        ? fill("milliseconds", { value: ms < 10 ? tenth.format(ms) : whole.format(ms) })
        : fill("seconds", { value: tenth.format(ms / 1000) }),
  };
}

function significant(language) {
  return new Intl.NumberFormat(language, { maximumSignificantDigits: 5, useGrouping: false });
}

/** Isolate a name inside a sentence: Arabic or Hebrew names leave the sentence's order alone. */
export function isolate(name) {
  return `\u2068${name}\u2069`;
}

/** Cut a name after so many visible characters; emoji of several code points stay whole. */
export function shorten(name, most) {
  const parts =
    typeof Intl.Segmenter === "function"
      ? Array.from(new Intl.Segmenter().segment(String(name)), (part) => part.segment)
      : Array.from(String(name));
  return parts.length <= most ? String(name) : `${parts.slice(0, most - 1).join("")}…`;
}
