"""The HTML of a model's monitoring page: one file, nothing loaded from anywhere."""

from boucle.training.report_template import STYLE

TEMPLATE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ model }}: monitoring</title>
<style>
"""
    + STYLE
    + """
  .plots { display: block; } figure { max-width: 100%; margin: 0 0 18px; } figure.small { max-width: 480px; }
  .figures { display: flex; flex-wrap: wrap; gap: 12px 36px; margin-top: 14px; }
  .figures div { min-width: 120px; } .figures b { display: block; font-size: 22px; font-weight: 600; }
  .fired { background: var(--failed); } .suppressed { background: var(--quiet); }
</style>
</head>
<body>
<main>
  <h1>{{ model }}: monitoring</h1>
  <p class="quiet">{{ description }}</p>
  {% if newest is none %}
  <section><p>No window was reported yet: the asset <code>live_performance</code> reports each period.</p></section>
  {% else %}
  {% set report = newest.performance %}
  <section>
    <h2>{{ report.period }}, the newest window</h2>
    <p class="quiet">{{ report.window_start.strftime("%Y-%m-%d") }} to {{ report.window_end.strftime("%Y-%m-%d") }}.
      In production: {{ "nothing" if report.production_version is none else "version %s" % report.production_version }}.
      As known at {{ report.outcomes.known_at.strftime("%Y-%m-%d") }}.</p>
    <div class="figures">
      <div><b>{{ "–" if report.coverage is none else "%.1f %%" | format(100 * report.coverage) }}</b>
        <span class="quiet">of {{ "{:,}".format(report.outcomes.due) }} due predictions have their outcome</span></div>
      {% if front is not none and front.metrics.log_loss is not none %}
      <div><b>{{ "%.4f" | format(front.metrics.log_loss.estimate) }}</b>
        <span class="quiet">log loss of version {{ front.version }}, nats</span></div>
      <div><b>{{ "%+.4f" | format(front.metrics.calibration.estimate) }}</b>
        <span class="quiet">mean score &minus; positive rate</span></div>
      {% endif %}
      {% if front is not none and front.metrics.auc is not none %}
      <div><b>{{ "%.3f" | format(front.metrics.auc.estimate) }}</b> <span class="quiet">AUC</span></div>
      {% endif %}
    </div>
  </section>

  <section>
    <h2>Within limits?</h2>
    <table>
      <tr><th>Gate</th><th>Verdict</th><th class="number">Measured</th><th class="number">Interval</th>
        <th class="number">Limit</th><th class="number">n</th></tr>
      {% for gate in gates %}
      <tr{% if gate.detail %} class="remarked"{% endif %}><td><code>{{ gate.name }}</code></td>
        <td><span class="chip {{ gate.verdict }}">{{ gate.verdict }}</span></td>
        <td class="number">{{ "nothing" if gate.measured is none else "%.4g" | format(gate.measured) }}</td>
        <td class="number">{% if gate.low is not none and gate.high is not none -%}
          {{ "%.4g" | format(gate.low) }} … {{ "%.4g" | format(gate.high) }}{% endif %}</td>
        <td class="number">{{ gate.bound }} {{ "%.4g" | format(gate.limit) }} {{ gate.unit }}</td>
        <td class="number">{{ "{:,}".format(gate.sample_size) }}</td></tr>
      {% if gate.detail %}<tr class="remark"><td colspan="6" class="quiet">{{ gate.detail }}</td></tr>{% endif %}
      {% else %}<tr><td colspan="6" class="quiet">Nothing was judged: no version is in production.</td></tr>
      {% endfor %}
    </table>
  </section>

  <section>
    <h2>Over time</h2>
    <div class="plots">
      {% for plot in plots %}
      <figure{% if plot.small %} class="small"{% endif %}>{{ plot.svg }}
        <figcaption>{{ plot.caption }}</figcaption></figure>
      {% endfor %}
    </div>
  </section>

  <section>
    <h2>Windows</h2>
    <table>
      <tr><th>Window</th><th>Versions</th><th class="number">Due</th><th class="number">Known</th>
        <th class="number">Realised log loss</th><th class="number">Estimated</th><th>As known at</th></tr>
      {% for row in windows %}
      <tr{% if row.why %} class="remarked"{% endif %}><td>{{ row.report.period }}</td><td>{{ row.versions or "–" }}</td>
        <td class="number">{{ "{:,}".format(row.report.outcomes.due) }}</td>
        <td class="number">{{ "{:,}".format(row.report.outcomes.known) }}</td>
        <td class="number">{{ row.realised or "–" }}</td><td class="number">{{ row.estimated or "–" }}</td>
        <td>{{ row.report.outcomes.known_at.strftime("%Y-%m-%d") }}
          {%- if row.report.restatement %}, restatement {{ row.report.restatement }}{% endif %}</td></tr>
      {% if row.why %}<tr class="remark"><td colspan="7" class="quiet">{{ row.why }}</td></tr>{% endif %}
      {% endfor %}
    </table>
    <p class="quiet">Realised: of the predictions whose outcome was due in the window. Estimated: of those served in it,
      from calibrated scores alone, as the report said when the window ended. Where several versions answered, of
      production.</p>
  </section>

  <section>
    <h2>How good were the estimates?</h2>
    {% if accuracy %}
    <table>
      <tr><th>Metric</th><th class="number">Windows</th><th class="number">Mean absolute error</th>
        <th class="number">Estimated &minus; realised, mean</th><th class="number">Realised in the interval</th></tr>
      {% for one in accuracy %}
      <tr><td>{{ names[one.metric] }}</td><td class="number">{{ one.estimates }}</td>
        <td class="number">{{ "%.4f" | format(one.mean_absolute_error) }}</td>
        <td class="number">{{ "%+.4f" | format(one.bias) }}</td>
        <td class="number">{{ "%.0f %%" | format(100 * one.covered) }}</td></tr>
      {% endfor %}
    </table>
    <p class="quiet">Each estimate as it was made, against the same predictions once their outcomes were known.</p>
    {% else %}<p class="quiet">No estimate has matured yet.</p>{% endif %}
  </section>

  {% if slices %}
  <section>
    <h2>Slices of {{ report.period }}, highest log loss first</h2>
    <table>
      <tr><th>Rows with</th><th class="number">Labels</th><th class="number">Positive rate</th>
        <th class="number">Log loss (nats)</th><th class="number">Interval</th>
        <th class="number">Mean score &minus; positive rate</th></tr>
      {% for row in slices %}
      <tr><td>{{ row.slice }}</td><td class="number">{{ "{:,}".format(row.predictions) }}</td>
        <td class="number">{{ "%.2f %%" | format(100 * row.positive_rate) }}</td>
        <td class="number">{{ "%.4f" | format(row.metrics.log_loss.estimate) }}</td>
        <td class="number">{{ "%.4f" | format(row.metrics.log_loss.low) }} …
          {{ "%.4f" | format(row.metrics.log_loss.high) }}</td>
        <td class="number">{{ "%+.4f" | format(row.metrics.calibration.estimate) }}</td></tr>
      {% endfor %}
    </table>
  </section>
  {% endif %}

  <section>
    <h2>Retraining triggers</h2>
    {% if triggers %}
    <table>
      <tr><th>Window</th><th>Outcome</th><th>Reason</th></tr>
      {% for at, trigger in triggers %}
      <tr><td>{{ trigger.period }}</td><td><span class="chip {{ trigger.outcome }}">{{ trigger.outcome }}</span></td>
        <td>{{ trigger.reason }}</td></tr>
      {% endfor %}
    </table>
    <p class="quiet">{{ triggers | length }} of {{ trigger_count }}, the newest first.</p>
    {% else %}<p class="quiet">None was judged yet.</p>{% endif %}
  </section>

  {% if restated %}
  <section>
    <h2>Restated</h2>
    <table>
      <tr><th>Window</th><th>First reported</th><th class="number">Known then</th><th>Now</th>
        <th class="number">Known now</th><th class="number">Late</th><th class="number">Corrected</th></tr>
      {% for first, now in restated %}
      <tr><td>{{ first.period }}</td><td>{{ first.outcomes.known_at.strftime("%Y-%m-%d") }}</td>
        <td class="number">{{ "{:,}".format(first.outcomes.known) }}</td>
        <td>{{ now.outcomes.known_at.strftime("%Y-%m-%d") }}</td>
        <td class="number">{{ "{:,}".format(now.outcomes.known) }}</td>
        <td class="number">{{ now.outcomes.late }}</td><td class="number">{{ now.outcomes.corrected }}</td></tr>
      {% endfor %}
    </table>
    <p class="quiet">What was reported first stays on record beside the restatement.</p>
  </section>
  {% endif %}
  {% endif %}
</main>
</body>
</html>
"""
)
