// Colors of classes in pictures; each is drawn over a dark outline, so that it shows on any photo.

const COLORS = [
  "#ffd60a", "#3fc1ff", "#ff6b9d", "#5ee06f", "#ff9f1c", "#b79bff",
  "#00e0c6", "#ff5c4d", "#c8f04b", "#8fb8ff", "#ffb3e6", "#e0b07a",
];

export const OUTLINE = "#101418";

/** Return the color of a class by its index. */
export function getColor(index) {
  const count = COLORS.length;
  return COLORS[((index % count) + count) % count];
}

/** Return red, green and blue of a class's color. */
export function getColorParts(index) {
  const value = Number.parseInt(getColor(index).slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
