// Lines and bars over time, by uPlot, which is loaded beside the first page that has charts: before its figures are asked for.
import { html, useEffect, useRef } from "../app/html.js";
import { compact, dateTime, hourMinute } from "../app/format.js";

const library = Promise.all([import("../vendor/uplot.js"), new Promise((done) => {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("../vendor/uplot.css", import.meta.url).href;
  sheet.onload = sheet.onerror = done;
  document.head.append(sheet);
})]).then(([module]) => module.default);

const absent = (value) => value === null || value === undefined;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// times: seconds since 1970.  series: [{ name, values, colour: 1…4, bars, scale, show: (number) => text, fill }].
// `summary`: what a screen reader says instead of the picture.
export function Chart({ times, series, summary, height = 208, lines = [], top, show = compact }) {
  const place = useRef(null);
  useEffect(() => {
    let plot = null;
    let gone = false;
    let watching = null;
    const draw = async () => {
      const uPlot = await library;
      if (gone || !place.current) return;
      plot?.destroy();
      plot = new uPlot(options(uPlot, place.current.clientWidth), [times, ...series.map((one) => one.values)], place.current);
    };
    const options = (uPlot, width) => ({
      width, height: height - 30, padding: [10, 18, 0, 0],
      cursor: { y: false, points: { size: 7 } },
      legend: { live: true },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, top ?? Math.max(high * 1.08, 1)] } },
      axes: [axis({ size: 28, values: (_, splits) => ticks(splits) }), axis({ size: 46, values: (_, splits) => splits.map((value) => show(value)) })],
      series: [
        { label: "Time", value: (_, at) => (absent(at) ? "" : dateTime(at * 1000)) },
        ...series.map((one) => drawn(uPlot, one)),
      ],
      hooks: { draw: [(self) => lines.forEach((line) => drawLine(self, line))] },
    });
    const axis = (more) => ({ stroke: colour("--soft"), font: `11px ${colour("--sans")}`, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, gap: 6, ...more });
    const ticks = (splits) => {
      const shown = splits.map((at) => (splits.at(-1) - splits[0] > 129_600 ? dateTime(at * 1000).replace(/,? \d\d:\d\d$/, "") : hourMinute(at * 1000)));
      return shown.map((text, at) => (text === shown[at - 1] ? "" : text));
    };
    const drawn = (uPlot, one) => {
      const stroke = colour(`--chart-${one.colour ?? 1}`);
      return {
        label: one.name, stroke, width: one.bars ? 0 : 1.75, value: (_, value, __, at) => (absent(at) ? "" : absent(value) ? "–" : (one.show ?? show)(value)),
        fill: one.bars ? stroke : one.fill ? `color-mix(in srgb, ${stroke} 14%, transparent)` : undefined,
        paths: one.bars ? uPlot.paths.bars({ size: [0.72, 40], radius: 0.12 }) : undefined,
        points: { show: one.values.filter((value) => value !== null).length < 4, size: 6, fill: stroke }, spanGaps: false,
      };
    };
    const drawLine = (self, line) => {
      const at = Math.round(self.valToPos(line.at, "y", true));
      const { ctx, bbox } = self;
      ctx.save();
      ctx.strokeStyle = colour("--bad");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, at);
      ctx.lineTo(bbox.left + bbox.width, at);
      ctx.stroke();
      ctx.restore();
    };
    draw();
    watching = new ResizeObserver(() => { if (plot && place.current?.clientWidth) plot.setSize({ width: place.current.clientWidth, height: height - 30 }); });
    watching.observe(place.current);
    addEventListener("theme", draw);
    return () => { gone = true; watching.disconnect(); removeEventListener("theme", draw); plot?.destroy(); };
  }, [times, series, height]);
  return html`<figure class="chart" role="img" aria-label=${summary}><div ref=${place} aria-hidden="true"></div></figure>`;
}
