// One prediction at a time: progress after a second, cancel, and try again.

const SHOW_MS = 1000;

/**
 * Create the runner of predictions.
 *
 * `choose()` is called for a new sample before it is prepared: it ends the run before, and returns a
 * function that says whether no other sample was chosen meanwhile. `start(sample, input)` cancels the
 * run before it; its result is no longer shown. `input` is what a result needs to be drawn: the view
 * of the photo. `onBusy` listeners hear when a run starts and ends.
 */
export function createRuns({ backend, words, problem, find, showResult }) {
  const listeners = new Set();
  let current = null;
  let choices = 0;

  const isCurrent = (run) => current === run;

  function setBusy(busy) {
    find("result").setAttribute("aria-busy", String(busy));
    for (const listener of listeners) listener(busy);
  }

  /** Remove the result before; `none` says that there is no result yet. */
  function clearResult(none = true) {
    problem.clear();
    find("summary").textContent = none ? words.fill("result_none") : "";
    find("summary").classList.toggle("quiet", none);
    find("latency").textContent = "";
    find("result-body").replaceChildren();
  }

  function showProgress(run) {
    const [panel, line] = [find("progress"), find("progress-text")];
    const write = () => {
      const seconds = Math.floor((performance.now() - run.began) / 1000);
      line.textContent = words.fill("working", { seconds: words.whole(seconds) });
      panel.hidden = false;
    };
    run.timer = setTimeout(() => {
      write();
      run.timer = setInterval(write, 5000);
    }, SHOW_MS);
  }

  function end(run) {
    clearTimeout(run.timer);
    clearInterval(run.timer);
    if (!isCurrent(run)) return;
    current = null;
    find("progress").hidden = true;
    setBusy(false);
  }

  function cancel() {
    const run = current;
    if (!run) return;
    run.control.abort();
    end(run);
    find("summary").textContent = words.fill("cancelled");
    find("summary").classList.add("quiet");
  }

  function choose() {
    cancel();
    clearResult();
    const choice = (choices += 1);
    return () => choice === choices;
  }

  async function start(sample, input = {}) {
    if (current) {
      current.control.abort();
      end(current);
    }
    const run = { control: new AbortController(), began: performance.now(), timer: 0 };
    current = run;
    clearResult(false);
    setBusy(true);
    showProgress(run);
    try {
      const result = await backend.predict(sample, { signal: run.control.signal });
      if (!isCurrent(run)) return;
      showResult(result, input);
    } catch (error) {
      if (!isCurrent(run) || run.control.signal.aborted) return;
      problem.show(error, () => start(sample, input));
    } finally {
      end(run);
    }
  }

  find("cancel").addEventListener("click", cancel);
  return {
    choose,
    start,
    clearResult,
    get busy() {
      return current !== null;
    },
    onBusy: (listener) => listeners.add(listener),
  };
}
