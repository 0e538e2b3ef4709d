"""The page's style sheet: light, dark and printed, from a phone's width to a desk's.

The drawings are the same in all of them: on a dark ground the style sheet gives each of their colours (figures/_ink.py)
another value. A sheet of paper is always light.
"""

# Of the figures' colours, on a dark ground: as far apart from each other for the colour-blind as those on a light one.
DARK_INK = {
    "#1f2328": "#e6e8eb",  # ink
    "#6b7280": "#9aa3ae",  # soft
    "#e5e7eb": "#2f353d",  # grid lines
    "#ffffff": "#15181c",  # paper
    "#f3f4f6": "#22272e",  # blank tiles
    "#0072b2": "#4ca3e6",
    "#d55e00": "#ff8138",
    "#009e73": "#1fc796",
    "#cc79a7": "#e59fc6",
    "#e69f00": "#f2b632",
    "#56b4e9": "#97d6ff",
    "#4d4d4d": "#8d939b",
}

_DARK_FIGURES = "".join(
    f'svg [fill="{light}"]{{fill:{dark}}}svg [stroke="{light}"]{{stroke:{dark}}}' for light, dark in DARK_INK.items()
)

CSS = (
    """
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--soft:#57606a;--line:#dfe3e8;--wash:#f6f7f9;
--accent:#0b5cad;--warn:#9a4a00;--alert:#fff7ed;--alertline:#fdba74}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1000px;padding:36px 28px 64px;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Helvetica,Arial,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
header{border-bottom:2px solid var(--ink);padding-bottom:14px;margin-bottom:14px}
header p{margin:0;color:var(--soft);font-size:14px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:21px;line-height:1.3;margin:48px 0 12px}
h3{font-size:16px;margin:28px 0 8px}
p{margin:0 0 12px}
a{color:var(--accent);text-decoration:none}a:hover,a:focus{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
nav{font-size:14px;margin-bottom:28px}nav a{display:inline-block;padding:4px 0;margin-right:16px}
nav+section h2{margin-top:0}
.question{font-size:17px;color:var(--soft)}
.answer{font-size:19px;line-height:1.5}
.unfinished{background:var(--alert);border:1px solid var(--alertline);border-radius:6px;padding:10px 14px;
font-weight:600}
ul.caveats{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
ul.caveats li{padding:8px 0 8px 92px;border-bottom:1px solid var(--line);position:relative}
ul.caveats b{position:absolute;left:0;top:11px;font-size:11px;letter-spacing:.06em;text-transform:uppercase;
color:var(--soft);font-weight:600}
ul.caveats .serious b{color:var(--warn)}
.scroll{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums;overflow-wrap:normal}
thead th{font-weight:600;color:var(--soft);border-bottom:1.5px solid var(--ink);text-align:left;
vertical-align:bottom}
th,td{padding:6px 14px 6px 0}
th:last-child,td:last-child{padding-right:2px}
tbody th{font-weight:400;text-align:left;min-width:7em}
td,tbody th{border-bottom:1px solid var(--line);vertical-align:top}
td small,tbody th small{display:block;font-size:12px;font-weight:400;color:var(--soft)}
.number{text-align:right;white-space:nowrap}
thead th.number{text-align:right;white-space:normal}
tr.strong th,tr.strong td{font-weight:600}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
figure{margin:0 0 44px;break-inside:avoid}
figure svg{width:100%;height:auto;display:block}
figcaption{font-size:14px;color:var(--soft);margin-bottom:10px}
.files{white-space:nowrap;font-size:13px}
.note{font-size:14px;color:var(--soft)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:6px;padding:14px 16px;overflow-x:auto;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:normal}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
details{margin:0 0 12px;font-size:14px}summary{cursor:pointer;color:var(--accent);padding:3px 0}
details table{font-size:12.5px}details th,details td{padding:4px 12px 4px 0}
dl{display:grid;grid-template-columns:190px minmax(0,1fr);gap:6px 18px;font-size:14px;margin:0 0 16px}
dt{font-weight:600}dd{margin:0}
ol{padding-left:22px}ol li{margin-bottom:10px}
footer{margin-top:48px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;color:var(--soft)}
@media (min-width:860px){figure.narrow{display:grid;grid-template-columns:minmax(0,470px) minmax(0,1fr);
column-gap:28px}figure.narrow h3{grid-column:1/3}}
@media (max-width:859px){figure.narrow .ink{max-width:520px}}
@media (max-width:640px){body{padding:22px 16px 40px}h1{font-size:24px}.answer{font-size:17px}
figure.wide svg{min-width:620px}.scroll table:not(.slim){min-width:520px}dl{grid-template-columns:1fr;gap:2px}
dd{margin-bottom:8px}ul.caveats li{padding-left:0}ul.caveats b{position:static;display:block}}
@media screen and (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e6e8eb;--soft:#9aa3ae;--line:#2f353d;
--wash:#1c2026;--accent:#79b8ff;--warn:#ffab5e;--alert:#2b2117;--alertline:#8a5a1e}"""
    + _DARK_FIGURES
    + """}
@media print{body{font-size:10pt;max-width:none;padding:0}
nav,.files,details:not(.printed),summary,footer a{display:none}
details.printed::details-content{content-visibility:visible;block-size:auto}details.printed table{font-size:7pt}
h2,h3{break-after:avoid}h2{margin-top:24px}.scroll{overflow:visible}table{font-size:8pt}
th,td{padding:3px 8px 3px 0}.number{white-space:normal}tr{break-inside:avoid}
td small,tbody th small{font-size:7pt}td small{white-space:nowrap}details.printed small{white-space:normal}
pre{white-space:pre-wrap}
figure.narrow{display:grid;grid-template-columns:3.25in minmax(0,1fr);column-gap:.2in}
figure.narrow h3{grid-column:1/3}figcaption,.note{font-size:8.5pt}a{color:inherit}}
"""
)
