// The chart, which is drawn from the table below it; what was done, said aloud; commands to copy. Pages work without it.
(() => {
  const root = document.documentElement;

  function colours() {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(name).trim();
    return { first: of("--chart-first"), second: of("--chart-second"), text: of("--chart-text"), line: of("--chart-line") };
  }

  function readTable(table) {
    const rows = [...table.tBodies[0].rows];
    const read = {};
    [...table.tHead.rows[0].cells].slice(1).forEach((head, column) => {
      const cells = rows.map((row) => row.cells[column + 1]);
      read[head.dataset.metric] = {
        name: head.textContent.trim(),
        values: cells.map((cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value))),
        texts: cells.map((cell) => cell.textContent.trim()),
      };
    });
    return { labels: rows.map((row) => row.cells[0].textContent.trim()), metrics: read };
  }

  function drawChart(canvas) {
    const table = readTable(document.getElementById("figures"));
    const selects = [document.getElementById("metric-a"), document.getElementById("metric-b")];
    const number = new Intl.NumberFormat(root.lang);
    const percent = new Intl.NumberFormat(root.lang, { style: "percent", maximumFractionDigits: 2 });
    let chart = null;
    function draw() {
      const colour = colours();
      const shown = selects.map((select) => table.metrics[select.value]);
      const axis = (place, at) => ({
        position: at,
        beginAtZero: true,
        title: { display: true, text: shown[place].name, color: colour.text },
        grid: { color: colour.line, drawOnChartArea: place === 0 },
        ticks: { color: colour.text, callback: (value) => (selects[place].value === "ctr" ? percent : number).format(value) },
      });
      if (chart) chart.destroy();
      chart = new Chart(canvas, {
        type: "line",
        data: {
          labels: table.labels,
          datasets: shown.map((metric, place) => ({
            label: metric.name,
            data: metric.values,
            yAxisID: place === 0 ? "a" : "b",
            borderColor: place === 0 ? colour.first : colour.second,
            backgroundColor: place === 0 ? colour.first : colour.second,
            borderDash: place === 0 ? [] : [6, 4],
            pointStyle: place === 0 ? "circle" : "rectRot",
            tension: 0.2,
          })),
        },
        options: {
          animation: false,
          maintainAspectRatio: false,
          interaction: { mode: "index", intersect: false },
          scales: { x: { ticks: { color: colour.text }, grid: { color: colour.line } }, a: axis(0, "left"), b: axis(1, "right") },
          plugins: {
            legend: { labels: { color: colour.text, usePointStyle: true } },
            tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${shown[item.datasetIndex].texts[item.dataIndex]}` } },
          },
        },
      });
      canvas.dataset.drawn = selects.map((select) => select.value).join(" ");
    }
    selects.forEach((select) => select.addEventListener("change", draw));
    new MutationObserver(draw).observe(root, { attributes: true, attributeFilter: ["data-bs-theme"] });
    draw();
  }

  function sayAloud() {
    const said = document.querySelector("tr[data-said]");
    if (!said) return;
    document.getElementById("said").textContent = said.dataset.said;
    said.removeAttribute("data-said");
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copies);
    getSelection().selectAllChildren(source);
    if (navigator.clipboard) await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = button.dataset.done;
  }

  document.addEventListener("DOMContentLoaded", () => {
    const canvas = document.getElementById("chart");
    if (canvas) drawChart(canvas);
    document.querySelectorAll("[data-copies]").forEach((button) => {
      button.hidden = false;
      button.addEventListener("click", () => copy(button));
    });
    document.querySelectorAll("input[type=date]").forEach((input) =>
      input.addEventListener("change", () => { document.getElementById("period").value = "custom"; }));
    document.querySelectorAll("select[data-sends]").forEach((select) =>
      select.addEventListener("change", () => select.form.requestSubmit()));
  });
  document.addEventListener("htmx:after:swap", sayAloud);
})();
