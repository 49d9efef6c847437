// The style and the script of report.html.
#pragma once

#include <string_view>

namespace rankwise::app {

inline constexpr std::string_view kReportStyle = R"css(
:root{--bg:#fbfbf9;--card:#fff;--ink:#1c2024;--soft:#5f6b76;--rule:#e4e6e8;--accent:#2563a8;--faint:#2563a838;
--good:#1a7f4b;--bad:#b3541e;--second:#7a4fa8;--third:#2b8a80;--data:#b06a12;--tint:#7a4fa80d;--mark:#f5d87a80}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e6e8ea;--soft:#98a4b0;--rule:#2d3339;
--accent:#6aaaf0;--faint:#6aaaf040;--good:#5cc98f;--bad:#e39a63;--second:#b690e6;--third:#5fc4b9;--data:#e0a458;--tint:#b690e612;--mark:#8a6d1a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 2px}h2{font-size:19px;margin:40px 0 4px}
.sub{color:var(--soft);margin:0 0 14px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;overflow-x:auto}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:14px}
.grid .card{padding:8px 8px 2px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:600;color:var(--soft);font-size:13px}th:first-child,td:first-child{text-align:left;padding-left:2px}
tr:last-child td{border-bottom:0}td.last{font-weight:650}
.change{font-size:12px;color:var(--soft);font-weight:400}
svg.chart{display:block;width:100%;height:auto;cursor:crosshair}
svg text{font-family:inherit;fill:var(--soft);font-size:10.5px}
svg .title{fill:var(--ink);font-size:12.5px;font-weight:600}svg .last{fill:var(--accent);font-size:12.5px;font-weight:600}
svg .rule{stroke:var(--rule);fill:none;stroke-width:1}
svg .line{stroke:var(--accent);fill:none;stroke-width:1.8;stroke-linejoin:round}
svg .raw{stroke:var(--faint);fill:none;stroke-width:1}svg .dot{fill:var(--accent)}
svg.chart .whisker{stroke:var(--accent);stroke-width:1.2;opacity:.6}
svg .pointer line{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 2}svg .pointer circle{fill:var(--ink)}
svg .pointer text{fill:var(--ink);font-size:11px;font-weight:600}
svg .pointer rect{fill:var(--card);opacity:.92}
.shares{display:flex;height:18px;border-radius:4px;overflow:hidden;margin:2px 0 8px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
.c0{background:#2563a8}.c1{background:#5b9bd5}.c2{background:#6aa577}.c3{background:#d9a441}.c4{background:#b3541e}
.c5{background:#7a6fae}.c6{background:#9aa5b1}
svg.chain{display:block;width:100%;height:auto;margin-bottom:8px}
svg.chain a{text-decoration:none}svg.chain .box{fill:var(--bg);stroke:var(--rule);stroke-width:1}
svg.chain a:hover .box{stroke:var(--model)}svg.chain .edge{stroke:var(--model);stroke-width:3;fill:none;stroke-linecap:round}
svg.chain .name{font-size:14px;font-weight:650;fill:var(--ink)}
svg.chain .right{font-size:14px;font-weight:650;fill:var(--model)}
svg.chain text{font-size:11px}svg.chain .model{fill:var(--model)}
svg.chain .spark{fill:none;stroke:var(--model);stroke-width:1.6;stroke-linejoin:round}
svg.chain .arrow{fill:none;stroke:var(--soft);stroke-width:1.5}svg.chain .tip{fill:var(--soft)}
svg.chain .arrow.data{stroke:var(--data);stroke-dasharray:4 3}svg.chain .tip.data{fill:var(--data)}
.legend .data{color:var(--data)}
.m0{--model:var(--accent)}.m1{--model:var(--second)}.m2{--model:var(--third)}.m3{--model:var(--soft)}
.legend i.m0,.legend i.m1,.legend i.m2,.legend i.m3{background:var(--model)}
table.results{font-size:13px}table.results th,table.results td{padding:6px 4px;vertical-align:top}
table.results th{white-space:normal;vertical-align:bottom;font-size:12px;line-height:1.25;cursor:help}
table.results small{display:block;font-size:11px;color:var(--soft);font-weight:400;line-height:1.35}
table.results td.stage{text-align:left;padding-left:10px;border-left:3px solid var(--model)}
table.results th.group{text-align:center;border-bottom:0;cursor:auto}
table.results .first{padding-left:26px;text-align:right}
table.results tr.other td{background:var(--tint)}td.none{color:var(--soft)}
svg.bar{display:block;width:84px;height:8px;margin:3px 0 2px auto}svg.bar rect{fill:var(--accent);opacity:.55}
svg.bar .whisker{stroke:var(--ink);stroke-width:1;fill:none}
tr.other svg.bar rect{fill:var(--second)}
.badge{font-size:10.5px;font-weight:600;color:var(--model);border:1px solid var(--model);border-radius:9px;padding:0 6px;
vertical-align:1px}
.told-row{display:grid;grid-template-columns:118px 1fr;gap:14px;padding:9px 0 9px 10px;border-left:3px solid var(--model);
border-top:1px solid var(--rule)}
.told-row small{display:block}.told-row small.good{color:var(--good)}.told-row small.bad{color:var(--bad)}
.told-row .text{font:12.5px/1.6 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
.told-row mark{background:var(--mark);color:inherit;border-radius:3px}
details.fold{margin-top:8px}details.fold .card{margin-top:6px}
details.stage{border-bottom:1px solid var(--rule)}details.stage summary h2{display:inline-block;margin:12px 0;font-size:17px;color:var(--ink)}
details.stage[open]{padding-bottom:18px}
.prompt{font-weight:600;margin:0 0 8px;white-space:pre-wrap;overflow-wrap:anywhere}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:14px}
@media (max-width:760px){.pair{grid-template-columns:1fr}}
.answer{border-left:3px solid var(--rule);padding:2px 0 2px 12px}
.answer.good{border-color:var(--good)}.answer.bad{border-color:var(--bad)}
.answer p{margin:0;font:13px/1.55 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
.answer small{color:var(--soft)}
.samples .card{margin-bottom:14px}
details summary{cursor:pointer;color:var(--soft)}
pre{font:12.5px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;overflow-x:auto;margin:8px 0 0}
code{font:12.5px ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
)css";

// Shows the nearest point under the pointer; opens the section that a box of the chain leads to.
// The page is whole without it.
inline constexpr std::string_view kReportScript = R"js(
for (const svg of document.querySelectorAll('svg.chart')) {
  const points = svg.dataset.points.split(';').map(p => {
    const [x, y, step, ...value] = p.split(',');
    return {x: +x, y: +y, step, value: value.join(',')};
  });
  const pointer = svg.querySelector('.pointer');
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const view = svg.viewBox.baseVal;
    const at = (event.clientX - box.left) / box.width * view.width;
    let near = points[0];
    for (const p of points) if (Math.abs(p.x - at) < Math.abs(near.x - at)) near = p;
    const text = svg.dataset.x + ' ' + near.step + ': ' + near.value;
    const width = 7 + text.length * 5.9;
    const left = Math.min(Math.max(near.x - width / 2, 2), view.width - width - 2);
    pointer.innerHTML = `<line x1="${near.x}" x2="${near.x}" y1="30" y2="${view.height - 24}"/>` +
      `<circle cx="${near.x}" cy="${near.y}" r="3.5"/>` +
      `<rect x="${left}" y="24" width="${width}" height="16" rx="3"/>` +
      `<text x="${left + width / 2}" y="36" text-anchor="middle">${text}</text>`;
  });
  svg.addEventListener('pointerleave', () => { pointer.innerHTML = ''; });
}
function unfold() {
  const section = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!section || !('open' in section)) return;
  section.open = true;
  section.scrollIntoView();
}
addEventListener('hashchange', unfold);
unfold();
)js";

}  // namespace rankwise::app
