"""The HTML of an evaluation report: one file, nothing loaded from anywhere."""

STYLE = """\
  :root { --ink: #1c2430; --quiet: #5d6b7c; --line: #dfe5ec; --paper: #ffffff; --ground: #f5f7fa;
          --passed: #1a7f4b; --failed: #b3261e; --inconclusive: #94620a; }
  * { box-sizing: border-box; }
  body { margin: 0; background: var(--ground); color: var(--ink);
         font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
  h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -.01em; }
  h2 { font-size: 17px; margin: 0 0 12px; }
  p { margin: 0 0 8px; }
  .quiet { color: var(--quiet); }
  section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
            margin-top: 18px; overflow-x: auto; }
  table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; white-space: nowrap; }
  th, td { padding: 8px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
  tr:last-child td, tr.remarked td { border-bottom: 0; }
  tr.remark td { padding-top: 0; font-size: 13px; }
  td.number, th.number { text-align: right; white-space: nowrap; }
  .chip { display: inline-block; border-radius: 999px; padding: 1px 10px; color: #fff; font-size: 13px;
          font-weight: 600; }
  .passed { background: var(--passed); } .failed { background: var(--failed); }
  .inconclusive { background: var(--inconclusive); } .off { background: var(--quiet); }
  .plots { display: flex; flex-wrap: wrap; gap: 16px; }
  figure { flex: 1 1 320px; max-width: 50%; margin: 0; } figure svg { width: 100%; height: auto; }
  figcaption { color: var(--quiet); font-size: 13px; }
  code { font: 13px ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
  td:first-child code { overflow-wrap: normal; white-space: nowrap; }
"""
"""What the pages for people look like."""

TEMPLATE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ evidence.model }} {{ evidence.version }}: {{ evidence.verdict }}</title>
<style>
"""
    + STYLE
    + """</style>
</head>
<body>
<main>
  <h1>{{ evidence.model }}, version {{ evidence.version }}
    <span class="chip {{ evidence.verdict }}">{{ evidence.verdict }}</span></h1>
  <p class="quiet">{{ against }} {{ "{:,}".format(evidence.holdout_rows) }} holdout rows,
    {{ "%.2f" | format(100 * evidence.holdout_positive_rate) }} % positive. {{ summary }}</p>

  <section>
    <h2>Metrics on the same holdout rows</h2>
    <table>
      <tr><th>Scores of</th><th class="number">Log loss (nats)</th><th class="number">95 % interval</th>
        <th class="number">AUC</th><th class="number">Brier</th><th class="number">Mean score &minus; positive rate</th>
        <th class="number">Mean score</th></tr>
      {% for row in metrics %}
      <tr><td>{{ row.name }}</td><td class="number">{{ "%.4f" | format(row.metrics.log_loss) }}</td>
        <td class="number">{{ row.interval }}</td>
        <td class="number">{{ "%.4f" | format(row.metrics.auc) }}</td>
        <td class="number">{{ "%.4f" | format(row.metrics.brier) }}</td>
        <td class="number">{{ "%+.4f" | format(row.metrics.calibration_error) }}</td>
        <td class="number">{{ "%.4f" | format(row.metrics.mean_score) }}</td></tr>
      {% endfor %}
    </table>
    <p class="quiet">Intervals resample whole entities. Whether the candidate is better is the paired gate
      <code>no_regression</code>, not the overlap of these intervals.</p>
  </section>

  <section>
    <h2>Gates</h2>
    <table>
      <tr><th>Gate</th><th>Verdict</th><th class="number">Measured</th><th class="number">Interval</th>
        <th class="number">Limit</th><th class="number">n</th></tr>
      {% for gate in evidence.gates %}
      <tr{% if gate.detail %} class="remarked"{% endif %}><td><code>{{ gate.name }}</code></td><td>
          {%- if gate.mode == "off" %}<span class="chip off">switched off</span>{% else %}
          <span class="chip {{ gate.verdict }}">{{ gate.verdict }}</span>{% if gate.mode == "warn" %}
          <span class="chip off">only warns</span>{% endif %}{% endif %}</td>
        <td class="number">{{ "nothing" if gate.measured is none else "%.4g" | format(gate.measured) }}</td>
        <td class="number">{% if gate.low is not none and gate.high is not none -%}
          {{ "%.4g" | format(gate.low) }} … {{ "%.4g" | format(gate.high) }}{% endif %}</td>
        <td class="number">{{ gate.bound }} {{ "%.4g" | format(gate.limit) }} {{ gate.unit }}</td>
        <td class="number">{{ "{:,}".format(gate.sample_size) }}</td></tr>
      {% if gate.detail %}<tr class="remark"><td colspan="6" class="quiet">{{ gate.detail }}</td></tr>{% endif %}
      {% endfor %}
    </table>
  </section>

  {% if slices %}
  <section>
    <h2>Slices, worst first</h2>
    <table>
      <tr><th>Rows with</th><th class="number">n</th><th class="number">Log loss gained (nats)</th>
        <th class="number">Interval</th></tr>
      {% for found in slices %}
      <tr><td>{{ found.name }}</td><td class="number">{{ "{:,}".format(found.gain.sample_size) }}</td>
        <td class="number">{{ "%+.4f" | format(found.gain.estimate) }}</td>
        <td class="number">{{ "%+.4f" | format(found.gain.low) }} … {{ "%+.4f" | format(found.gain.high) }}</td></tr>
      {% endfor %}
    </table>
    <p class="quiet">{{ slices | length }} of {{ slice_count }} slices. Each interval covers
      {{ "%.2f" | format(100 * slice_level) }} %, so that all of them hold together.</p>
  </section>
  {% endif %}

  <section>
    <h2>Plots</h2>
    <div class="plots">
      {% for plot in plots %}
      <figure>{{ plot.svg }}<figcaption>{{ plot.caption }}</figcaption></figure>
      {% endfor %}
    </div>
  </section>

  <section>
    <h2>What exactly was judged</h2>
    <table>
      {% for name, value in identity %}
      <tr><th>{{ name }}</th><td><code>{{ value }}</code></td></tr>
      {% endfor %}
    </table>
  </section>
</main>
</body>
</html>
"""
)
