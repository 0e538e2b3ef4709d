"""The page's style sheet: light, printable, and readable from a phone's width to a desk's."""

CSS = """
:root{--ink:#1f2328;--soft:#5b6470;--line:#e2e5e9;--wash:#f6f7f9;--accent:#0b5cad;--warn:#b45309}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",
Helvetica,Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:960px;margin:0 auto;padding:40px 28px 64px}
header{border-bottom:2px solid var(--ink);padding-bottom:14px;margin-bottom:24px}
header p{margin:0;color:var(--soft);font-size:14px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:20px;line-height:1.3;margin:44px 0 12px}
h3{font-size:16px;margin:28px 0 8px}
p{margin:0 0 12px}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
.answer{font-size:19px;line-height:1.5}
.unfinished{background:#fff7ed;border:1px solid #fdba74;border-radius:6px;padding:10px 14px;font-weight:600}
ul.caveats{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
ul.caveats li{padding:8px 0 8px 92px;border-bottom:1px solid var(--line);position:relative;overflow-wrap:anywhere}
ul.caveats b{position:absolute;left:0;top:11px;font-size:11px;letter-spacing:.06em;text-transform:uppercase;
color:var(--soft);font-weight:600}
ul.caveats .serious b{color:var(--warn)}
.scroll{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);border-bottom:1.5px solid var(--ink);text-align:left;vertical-align:bottom}
th,td{padding:6px 14px 6px 0}
th:last-child,td:last-child{padding-right:0}
td{border-bottom:1px solid var(--line);vertical-align:top}
td small{display:block;font-size:12px;font-weight:400;color:var(--soft)}
td:first-child{white-space:nowrap}
.number{text-align:right;white-space:nowrap}
th.number{white-space:normal}
tr.strong td{font-weight:600}
figure{margin:0 0 40px;break-inside:avoid}
figure svg{width:100%;height:auto;display:block}
figcaption{font-size:14px;color:var(--soft);margin-top:8px}
.files{white-space:nowrap}
.note{font-size:14px;color:var(--soft)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:6px;padding:14px 16px;overflow-x:auto;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
details{margin:0 0 12px}summary{cursor:pointer;color:var(--accent)}
details[open] summary{margin-bottom:8px}
dl{display:grid;grid-template-columns:190px 1fr;gap:6px 18px;font-size:14px;margin:0}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:48px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;color:var(--soft)}
@media (max-width:640px){main{padding:22px 16px 40px}h1{font-size:24px}.answer{font-size:17px}
figure .scroll svg{min-width:600px}table{min-width:560px}dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:8px}
ul.caveats li{padding-left:0}ul.caveats b{position:static;display:block}}
@media print{body{font-size:10.5pt}main{max-width:none;padding:0}.files{display:none}h2{break-after:avoid}
.scroll{overflow:visible}table{font-size:8.5pt}pre{white-space:pre-wrap}}
"""
