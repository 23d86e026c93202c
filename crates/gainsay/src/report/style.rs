//! The page's style sheet. Colors come in a light and a dark set; every text and every mark that
//! carries meaning has a contrast of at least 4.5 (text) or 3 (marks) against what it stands on,
//! and the colors of marks (blue, amber, vermilion) stay apart for color-blind readers, who also
//! get them as shapes, dashes and words.

/// Contents of the page's one `<style>` element.
pub const CSS: &str = concat!(
    r#"
:root{color-scheme:light dark;
--paper:#fdfcf9;--wash:#f3f0e9;--deep:#e9e4d9;--ink:#1d1c1a;--soft:#5c5852;--rule:#dcd7cc;
--blue:#1f5f99;--slate:#6d8598;--amber:#a86a00;--wrong:#b5340c;--line:#8b857b;
--serif:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Cambria,Georgia,"Liberation Serif",serif;
--sans:Inter,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,sans-serif}
@media (prefers-color-scheme:dark){:root{
--paper:#161719;--wash:#1f2124;--deep:#2a2c30;--ink:#ebe8e2;--soft:#aca79e;--rule:#36383d;
--blue:#7fb6ea;--slate:#7f97aa;--amber:#e0a84a;--wrong:#ff8a5c;--line:#7d7a75}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1.125rem/1.6 var(--serif);
font-variant-numeric:oldstyle-nums;text-rendering:optimizeLegibility}
main,header,footer{max-width:58rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:4.5rem}
p,ul,dl{margin:0 0 1.1em}
main p,main ul,.lede{max-width:39rem}
.kicker,nav,.plot,figcaption,table,.key,.figures,summary,.card,.notice,footer,.tag,.label{font-family:var(--sans);
font-variant-numeric:lining-nums tabular-nums}
.kicker{font-size:.8125rem;letter-spacing:.06em;color:var(--soft);margin:0 0 1.1rem;overflow-wrap:anywhere}
.kicker b{color:var(--ink);font-weight:600}
h1{font-size:clamp(2.1rem,1.3rem + 3.4vw,3.4rem);line-height:1.08;letter-spacing:-.018em;font-weight:700;
margin:0 0 1.6rem;max-width:18em;text-wrap:balance}
h2{font-size:clamp(1.5rem,1.2rem + 1.2vw,1.95rem);line-height:1.2;letter-spacing:-.01em;margin:0 0 .9rem;text-wrap:balance}
h3{font:600 1.0625rem/1.35 var(--sans);margin:2.4rem 0 .6rem}
.lede{font-size:1.3125rem;line-height:1.55;margin-bottom:2.2rem}
.lede strong{font-weight:700}
span.name{white-space:nowrap}
.iv{font-family:var(--sans);font-variant-numeric:lining-nums tabular-nums;font-size:.78em;color:var(--soft);white-space:nowrap}
section{padding:4rem 0 0}
section>h2::before{content:"";display:block;width:3.25rem;border-top:3px solid var(--ink);margin-bottom:1.1rem}
a{color:var(--blue);text-decoration-thickness:1px;text-underline-offset:.18em}
a:focus-visible,summary:focus-visible{outline:2px solid var(--blue);outline-offset:3px;border-radius:2px}
nav{font-size:.875rem;line-height:1.5;color:var(--soft);border-top:1px solid var(--rule);padding-top:.9rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem 1.4rem;margin:0;padding:0;max-width:none}
.skip{position:absolute;left:-999rem}.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem 1rem;z-index:2}
.notice{background:var(--wash);border-left:4px solid var(--amber);padding:1rem 1.25rem;font-size:.9375rem;line-height:1.5;
margin:0 0 2rem;max-width:46rem}
.notice p{margin:0 0 .4em;max-width:none}.notice ul{margin:0;padding-left:1.2em;max-width:none}
.absent{color:var(--soft);font-style:italic}
.small{font-size:.9375rem;color:var(--soft)}
code{font:.88em/1.4 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;overflow-wrap:anywhere}
"#,
    r#"
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.7rem,1fr));gap:1.6rem 2rem;margin:0 0 2.6rem;
padding:1.5rem 0 0;border-top:1px solid var(--rule)}
.figures div{display:flex;flex-direction:column}
.figures dd{order:-1;margin:0;min-height:2.3rem;display:flex;align-items:end;font-size:1.95rem;line-height:1.15;font-weight:600;letter-spacing:-.02em}
.figures dt{font-size:.875rem;line-height:1.4;color:var(--soft);margin-top:.35rem}
.figures dd.words{font-size:1.1rem;line-height:1.2;letter-spacing:-.005em;padding:0}
figure{margin:2rem 0 2.2rem}
figcaption{font-size:.875rem;line-height:1.5;color:var(--soft);max-width:42rem;margin-top:.9rem}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem 3rem}
.pair figure{min-width:0}
.pair h3{margin:0 0 1rem}
.pair figure{margin-bottom:0}
.plot{position:relative;padding:1.7rem .9rem 3.1rem 3.1rem;font-size:.8125rem;color:var(--soft)}
.plot>svg{display:block;width:100%;height:var(--h,15rem);overflow:visible}
.plot text{font-size:.8125rem;fill:var(--soft)}
.plot text.name{fill:var(--ink);font-weight:600}
.plot text.halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.axis{stroke:var(--line);stroke-width:1}
.grid{stroke:var(--rule);stroke-width:1}
.dash{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:5 4}
.thin{stroke:var(--line);stroke-width:1;stroke-dasharray:2 4}
.plot.bare{padding-top:.4rem}
.map{max-width:43rem}
.map>svg{height:auto;aspect-ratio:1}
.region{fill:var(--wash)}
.border{stroke:var(--line);stroke-width:1;stroke-dasharray:4 4;vector-effect:non-scaling-stroke}
.none{fill:var(--paper);stroke:var(--slate);stroke-width:1}
.right{fill:var(--slate);stroke:var(--paper);stroke-width:.75}
.some{fill:var(--amber);stroke:var(--paper);stroke-width:.75}
.most{fill:var(--wrong);stroke:var(--paper);stroke-width:.75}
.ring{fill:none;stroke:var(--ink);stroke-width:1.4;pointer-events:none}
.dots>*:hover{stroke:var(--ink);stroke-width:1.5}
.bar{fill:var(--slate)}.bar.over{fill:var(--blue)}
.chance{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4;vector-effect:non-scaling-stroke}
.curve{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.s0{stroke:var(--blue)}.s1{stroke:var(--wrong);stroke-dasharray:7 4}.s2{stroke:var(--amber);stroke-dasharray:2 4}
.s3{stroke:var(--ink);stroke-dasharray:10 3 2 3}.s4{stroke:var(--slate)}
.look{stroke-width:2}.l0{fill:var(--blue);stroke:var(--paper);stroke-width:1}.l1{fill:var(--paper);stroke:var(--wrong)}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.4rem 1.5rem;margin:0 0 1rem;padding:0;font-size:.875rem;line-height:1.4;max-width:none}
.key li{display:flex;align-items:center;gap:.5rem}
.key svg{flex:none;overflow:visible}
"#,
    r#"
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem;line-height:1.4;margin:0}
caption{text-align:left;font-size:.875rem;line-height:1.5;color:var(--soft);padding-bottom:.9rem;max-width:44rem}
caption b{display:block;color:var(--ink);font-size:1.0625rem;font-weight:600;margin-bottom:.15rem}
th,td{padding:.6rem 0 .6rem 1.25rem;border-bottom:1px solid var(--rule);vertical-align:baseline;text-align:right;font-weight:400}
th:first-child,td:first-child{padding-left:0;text-align:left}
thead th{font-size:.8125rem;color:var(--soft);border-bottom:1px solid var(--line);vertical-align:bottom}
thead th b{color:var(--ink);font-weight:600;display:block;font-size:.9375rem}
tbody th{font-weight:500}
tbody th .why,td .why{display:block;font-weight:400;font-size:.8125rem;color:var(--soft);max-width:26em}
td .ci{display:block;font-size:.8125rem;color:var(--soft);white-space:nowrap}
td.n{white-space:nowrap}
tr.group th{border-bottom:0;padding-top:1.5rem;font-weight:600}
.narrow{display:none}
tr.sub th{font-weight:400;padding-left:1rem}
tr.sub th,tr.sub td{padding-top:.4rem;padding-bottom:.4rem}
tr.group+tr.sub th,tr.group+tr.sub td{padding-top:.15rem}
tr.total th,tr.total td{font-weight:600;border-bottom:0}
td.wide{width:32%;min-width:8rem;vertical-align:middle}
.stack td .ci{display:inline}
td.text,th.text{text-align:left}
.cell{display:block;width:100%;height:1.4rem;overflow:visible}
.whisker{stroke:var(--ink);stroke-width:1.75}
.point{fill:var(--ink);stroke:var(--paper);stroke-width:1.5}
.whisker.on{stroke:var(--blue);stroke-width:2.25}.point.on{fill:var(--blue)}
.zero{stroke:var(--line);stroke-width:1;stroke-dasharray:3 3}
.cell text{font-size:.75rem;fill:var(--soft)}
.verdict{white-space:nowrap}
.verdict b{font-weight:600;color:var(--blue)}
.quad td,.quad th{text-align:right}
.card{border-top:1px solid var(--rule);padding:1.6rem 0 1.9rem}
.card h3{margin:0 0 .55rem}
.card .asked{font:1.1875rem/1.45 var(--serif);margin:0 0 1.1rem;max-width:42rem}
.card .meta{font-weight:400;font-size:.875rem;color:var(--soft)}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:1.25rem}
.side{background:var(--wash);padding:1.1rem 1.25rem 1.15rem;min-width:0}
.side h4{font-size:.875rem;line-height:1.4;margin:0 0 .15rem;font-weight:600}
.side .values{font-size:.8125rem;line-height:1.5;color:var(--soft);margin:0 0 .8rem;display:flex;flex-wrap:wrap;gap:0 .7rem}
.values b{font-weight:500;color:var(--ink)}
.passage{font:1.0313rem/1.55 var(--serif);white-space:pre-wrap;overflow-wrap:anywhere;overflow:hidden;margin:0;max-width:none}
.asked .passage{font:inherit}
.passage.empty{font-style:italic;color:var(--soft)}
.rest{color:var(--soft);font-family:var(--sans);font-size:.8125rem}
.control{font:.8em ui-monospace,Menlo,Consolas,"Liberation Mono",monospace;background:var(--deep);padding:0 .2em;border-radius:2px;unicode-bidi:isolate}
.outcome{margin:.9rem 0 0;font-size:.9375rem;line-height:1.5;max-width:44rem}
.outcome b{font-weight:600}.outcome .bad{color:var(--wrong)}
details{border-top:1px solid var(--rule);padding:.9rem 0}
details:last-of-type{border-bottom:1px solid var(--rule)}
details.more{margin-top:1.2rem}
summary{cursor:pointer;font-size:1rem;font-weight:500}
details>*:not(summary){margin-top:1rem}
details dt{font:600 .9375rem var(--sans);margin-top:.8rem}details dd{margin:.15rem 0 0;max-width:40rem;font-size:1.0313rem}
pre{font:.8125rem/1.55 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;background:var(--wash);padding:1.1rem 1.25rem;
margin:0;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
hr{border:0;margin:0 0 2.6rem}
footer{padding-top:4rem;padding-bottom:4rem;font-size:.8125rem;color:var(--soft)}
footer p{max-width:42rem}
"#,
    r#"
@media (max-width:44rem){
body{font-size:1.0625rem}
main,header,footer{padding-left:1.15rem;padding-right:1.15rem}
header{padding-top:2.5rem}section{padding-top:3rem}
.lede{font-size:1.1875rem}
.pair,.sides{grid-template-columns:1fr}
.figures{grid-template-columns:1fr 1fr;gap:1.4rem 1.2rem}
.figures dd{font-size:1.5rem}.figures dd.words{font-size:1.05rem}
.plot{padding-left:2.5rem;padding-right:.4rem}
th,td{padding-left:.8rem}
table{font-size:.875rem}
.spread tbody,.spread thead{display:block}
.spread tr{display:grid;grid-template-columns:repeat(var(--n),minmax(0,1fr));border-bottom:1px solid var(--rule);padding:.7rem 0;gap:.1rem .5rem}
.spread th,.spread td{border:0;padding:0;text-align:left;white-space:normal}
.spread th:first-child{grid-column:1/-1;padding-bottom:.2rem}
.spread thead th:first-child{display:none}.spread thead tr{border-bottom-color:var(--line)}
.spread .wide{display:none}
.narrow{display:inline}
.stack thead{position:absolute;left:-999rem}
.stack tbody,.stack tr{display:block}
.stack tr{border-bottom:1px solid var(--rule);padding:.7rem 0;display:grid;grid-template-columns:1fr auto;gap:.15rem 1rem;align-items:baseline}
.stack tr.group{border:0;padding:1.2rem 0 .1rem}.stack tr.group th{padding:0}
.stack th,.stack td,.stack tr.sub th,.stack tr.sub td,.stack tr.group+tr.sub th,.stack tr.group+tr.sub td{border:0;padding:0}
.stack td.wide{grid-column:1/-1;grid-row:3;width:auto}
.stack td.text{grid-column:1;grid-row:2;text-align:left}
.stack td:nth-of-type(2){grid-column:2;grid-row:2}
.plot text.sub{display:none}.plot text.low{transform:translateY(2.6em)}
.dots circle{r:2.8px}.dots .ring{r:6px}#lozenge{transform:scale(.78)}
td .why,tbody th .why{font-size:.75rem}
}
@media print{
:root{--paper:#fff;--wash:#f4f4f2;--ink:#000;--soft:#444}
html{font-size:12px}main,header,footer{max-width:none;padding-left:0;padding-right:0}
header{padding-top:0}section{padding-top:1.6rem}
nav,.skip{display:none}
figure,.card,table,.figures{break-inside:avoid}h2,h3{break-after:avoid}
.map{max-width:15cm}
a{color:inherit;text-decoration:none}
}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
"#
);

#[cfg(test)]
mod tests {
    use super::CSS;

    /// Relative luminance of a `#rrggbb` color, WCAG 2.2.
    fn luminance(hex: &str) -> f64 {
        let channel = |i: usize| {
            let c = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
            if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    /// WCAG 2.2's contrast ratio, from 1 to 21.
    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// The `nth` definition of a color: 0 light, 1 dark.
    fn color(name: &str, nth: usize) -> &'static str {
        let start = CSS.match_indices(&format!("--{name}:#")).nth(nth).unwrap().0 + name.len() + 3;
        &CSS[start..start + 7]
    }

    #[test]
    fn contrast_of_black_on_white_is_21() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
    }

    #[test]
    fn text_and_marks_can_be_told_from_what_they_stand_on() {
        for theme in 0..2 {
            for ground in ["paper", "wash"] {
                for text in ["ink", "soft", "blue", "wrong"] {
                    let ratio = contrast(color(text, theme), color(ground, theme));
                    assert!(ratio >= 4.5, "{text} on {ground}, theme {theme}: {ratio:.2}");
                }
                for mark in ["slate", "amber", "line"] {
                    let ratio = contrast(color(mark, theme), color(ground, theme));
                    assert!(ratio >= 3.0, "{mark} on {ground}, theme {theme}: {ratio:.2}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for needle in ["url(", "@import", "http:", "https:", "//"] {
            assert!(!CSS.contains(needle), "{needle}");
        }
    }
}
