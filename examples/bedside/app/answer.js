/** The answer of the app in a browser; on Linux that of app.py. */

const LEAST_CONFIDENCE = 0.7;

/** Return the digit in a photo; ask for another photo if the model is not sure. */
export async function answer(models, sample) {
  const found = await models.main.predict(sample);
  if (found.confidence < LEAST_CONFIDENCE) {
    found.note = "The digit is not clear. Take another photo, closer and in even light.";
  }
  return found;
}
