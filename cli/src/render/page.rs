//! The frame and the style that all HTML pages share: one file, no script, nothing fetched, readable on paper.

use std::fmt::Write as _;

use dray_engine::api::host::{OutputFile, OutputForm, timestamp};
use dray_engine::report::{Problem, shown};

/// Tone of a value. Never shown by colour alone: the text carries it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As expected.
    Good,
    /// Worth a look.
    Warn,
    /// A failure or a difference.
    Bad,
    /// Neither good nor bad.
    Plain,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    class: &'static str,
}

impl Column {
    /// A column of words, aligned left.
    pub const fn text(name: &'static str) -> Self {
        Self { name, class: "" }
    }

    /// A few words that stay on their line.
    pub const fn word(name: &'static str) -> Self {
        Self { name, class: "w" }
    }

    /// A column of sentences, which may contain paths and hashes.
    pub const fn long(name: &'static str) -> Self {
        Self { name, class: "l" }
    }

    /// Numbers: to the right, digits below digits.
    pub const fn number(name: &'static str) -> Self {
        Self { name, class: "n" }
    }

    /// Paths, serials, hashes: to be read letter by letter.
    pub const fn code(name: &'static str) -> Self {
        Self { name, class: "c" }
    }
}

/// A page that grows from top to bottom. Text is escaped; only [`Page::raw`] and [`Page::figure`] take markup.
#[derive(Debug)]
pub struct Page {
    title: String,
    body: String,
    class: &'static str,
}

impl Page {
    /// A page with its heading and one line below it.
    pub fn new(title: &str, lead: &str) -> Self {
        let mut page = Self { title: title.into(), body: String::new(), class: "" };
        let _ = write!(page.body, "<header><h1>{}</h1>", escape(title));
        if !lead.is_empty() {
            let _ = write!(page.body, "<p class=\"lead\">{}</p>", escape(lead));
        }
        page.body.push_str("</header>\n");
        page
    }

    /// The word that matters most, in a box, with a sentence.
    pub fn verdict(&mut self, tone: Tone, word: &str, sentence: &str) {
        let _ = writeln!(
            self.body,
            "<p class=\"verdict {}\"><strong>{}</strong> {}</p>",
            tone.class(),
            escape(&ended(word)),
            escape(sentence)
        );
    }

    /// Adds a section heading.
    pub fn section(&mut self, heading: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(heading));
    }

    /// Adds a heading one level lower.
    pub fn subsection(&mut self, heading: &str) {
        let _ = writeln!(self.body, "<h3>{}</h3>", escape(heading));
    }

    /// Adds a paragraph.
    pub fn text(&mut self, paragraph: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(paragraph));
    }

    /// A paragraph in small grey letters.
    pub fn note(&mut self, paragraph: &str) {
        let _ = writeln!(self.body, "<p class=\"note\">{}</p>", escape(paragraph));
    }

    /// Text that keeps its lines: commands, files.
    pub fn pre(&mut self, text: &str) {
        let _ = writeln!(self.body, "<pre>{}</pre>", escape(text));
    }

    /// Labels and values, side by side.
    pub fn facts<L: AsRef<str>, V: AsRef<str>>(&mut self, facts: impl IntoIterator<Item = (L, V)>) {
        self.body.push_str("<dl>");
        for (label, value) in facts {
            let _ =
                write!(self.body, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label.as_ref()), escape(value.as_ref()));
        }
        self.body.push_str("</dl>\n");
    }

    /// A table; a row may be shorter than the head.
    pub fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        self.body.push_str("<div class=\"wide\"><table><thead><tr>");
        for column in columns {
            let _ = write!(self.body, "<th class=\"{}\">{}</th>", column.class, escape(column.name));
        }
        self.body.push_str("</tr></thead><tbody>\n");
        for row in rows {
            self.body.push_str("<tr>");
            for (cell, column) in row.iter().zip(columns) {
                let _ = write!(self.body, "<td class=\"{}\">{}</td>", column.class, escape(cell));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</tbody></table></div>\n");
    }

    /// Adds a picture (inline SVG, already escaped) with its caption.
    pub fn figure(&mut self, svg: &str, caption: &str) {
        let _ = writeln!(self.body, "<figure>{svg}<figcaption>{}</figcaption></figure>", escape(caption));
    }

    /// Appends markup without escaping it.
    pub fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    /// A class of the page's body, for pages that lay themselves out for paper.
    pub fn class(&mut self, class: &'static str) {
        self.class = class;
    }

    /// The whole page.
    pub fn finish(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"generator\" content=\"dray {}\">\n<title>{}</title>\n<style>{STYLE}</style></head>\n\
             <body class=\"{}\"><main>\n{}<footer>dray {} · {}</footer>\n</main></body></html>\n",
            env!("CARGO_PKG_VERSION"),
            escape(&self.title),
            self.class,
            self.body,
            env!("CARGO_PKG_VERSION"),
            timestamp().strftime("%Y-%m-%d %H:%M UTC"),
        )
    }

    /// Completes `file` with the page.
    ///
    /// # Errors
    /// The file cannot be written; the problem names it.
    pub fn save(&self, mut file: OutputFile) -> Result<(), Problem> {
        file.add(self.finish().as_bytes())?;
        file.finish()
    }
}

/// Adds a full stop unless the text already ends in punctuation.
fn ended(word: &str) -> String {
    let is_ended = word.ends_with(['.', ':', '!', '?']);
    if is_ended { word.to_owned() } else { format!("{word}.") }
}

/// A page as a file: it may replace an earlier page of dray.
pub const FORM: OutputForm = OutputForm {
    name: "the page",
    is_earlier: |head| {
        let made = b"<meta name=\"generator\" content=\"dray ";
        head.starts_with(b"<!doctype html>") && head.windows(made.len()).any(|part| part == made)
    },
    private: false,
};

/// `text` as HTML text or attribute value; invisible characters are made visible.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c => out.push_str(&shown(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// Colours for figures are `--c1` to `--c6` (blue, teal, amber, rose, violet, grey), `--ink`, `--soft`, `--line`;
/// as SVG: `style="fill:var(--c1)"`, text with `class="t"` (small, grey) or `class="tt"` (small, dark).
const STYLE: &str = "
:root{--paper:#fdfdfc;--ink:#22262b;--soft:#646c75;--line:#e3e5e8;--wash:#f4f5f6;
--c1:#4a78b0;--c2:#4f9d8f;--c3:#d29b43;--c4:#c0616b;--c5:#8471ab;--c6:#aeb5bd;
--good:#2f7d5b;--warn:#9a6a12;--bad:#b23b46;--goodw:#edf6f1;--warnw:#fbf4e4;--badw:#fbeeef}
@media (prefers-color-scheme:dark){:root{--paper:#17191c;--ink:#e4e6e9;--soft:#98a0aa;--line:#2e3338;--wash:#1f2226;
--c1:#6f9bd1;--c2:#67b5a6;--c3:#dcae62;--c4:#d27f88;--c5:#a08fc6;--c6:#5d656e;
--good:#6fc39b;--warn:#dcb35c;--bad:#e28a92;--goodw:#1c2b24;--warnw:#2d2719;--badw:#30201f}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--wash:#f4f4f4;
--c1:#4a78b0;--c2:#4f9d8f;--c3:#d29b43;--c4:#c0616b;--c5:#8471ab;--c6:#aeb5bd;
--good:#2f7d5b;--warn:#9a6a12;--bad:#b23b46;--goodw:#fff;--warnw:#fff;--badw:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,
'Noto Sans','DejaVu Sans',sans-serif;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:58rem;margin:0 auto;padding:3rem 1.75rem 4rem}
h1{font-size:1.75rem;line-height:1.2;font-weight:600;letter-spacing:-.015em;margin:0}
h2{font-size:1.15rem;font-weight:600;margin:2.75rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;font-weight:600;margin:1.75rem 0 .5rem}
p{margin:.6rem 0;max-width:46rem}
.lead{color:var(--soft);margin:.35rem 0 0}
.note,footer,figcaption{color:var(--soft);font-size:.85rem}
.verdict{margin:1.75rem 0;padding:.8rem 1.1rem;border-left:3px solid var(--soft);background:var(--wash);max-width:none}
.verdict.good{border-color:var(--good);background:var(--goodw)}.verdict.good strong{color:var(--good)}
.verdict.warn{border-color:var(--warn);background:var(--warnw)}.verdict.warn strong{color:var(--warn)}
.verdict.bad{border-color:var(--bad);background:var(--badw)}.verdict.bad strong{color:var(--bad)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem 1.75rem;margin:1.25rem 0}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.75rem 0 1.25rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th{font-weight:500;color:var(--soft);font-size:.8rem;text-align:left;border-bottom:1px solid var(--line);
padding:.35rem 1.25rem .35rem 0;white-space:nowrap}
td{padding:.4rem 1.25rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word}
td.w{white-space:nowrap}td.c{overflow-wrap:anywhere;min-width:6.5rem}td.l{overflow-wrap:anywhere;min-width:9rem}
th:last-child,td:last-child{padding-right:0}
th.n{width:1%}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
dl.two{grid-template-columns:1fr 1fr}
.big{font-size:1.9rem;font-weight:600;letter-spacing:-.01em;line-height:1.2;margin:1.5rem 0;max-width:none}
.big span{display:block;color:var(--soft);font-size:.8rem;font-weight:400;letter-spacing:0;margin-bottom:.2rem}
.labels{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1.5rem;margin:2rem 0}
.label{border:1px dashed var(--c6);border-radius:4px;padding:.25rem 1.5rem .75rem;break-inside:avoid}
.label .big{margin:1rem 0;overflow-wrap:anywhere}
.sign table{table-layout:fixed}.sign td{height:2.9rem}.sign td+td{border-left:1px solid var(--line);padding-left:.6rem}
.sign th+th{padding-left:.6rem}
details{margin:1.25rem 0}summary{color:var(--soft);cursor:pointer;font-size:.9rem}
ul{padding-left:1.2rem;max-width:46rem}li{margin:.35rem 0}
td.c,pre,code{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.85em}
pre{background:var(--wash);padding:.9rem 1.1rem;overflow-x:auto;line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere}
figure{margin:1.25rem 0}figure svg{display:block;width:100%;height:auto}figcaption{margin-top:.5rem}
svg .t{fill:var(--soft);font:11px system-ui,'DejaVu Sans',sans-serif}
svg .tt{fill:var(--ink);font:12px system-ui,'DejaVu Sans',sans-serif}
footer{margin-top:3.5rem;padding-top:.9rem;border-top:1px solid var(--line)}
@media print{main{max-width:none;padding:0}body{font-size:11pt}h2{break-after:avoid}tr,figure,dl{break-inside:avoid}
footer{margin-top:1rem;padding-top:.5rem;break-before:avoid}h2{margin-top:1.6rem}
@page{margin:16mm}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_becomes_markup() {
        let evil = "<script>alert('x')</script>&\"\x1b[2J";
        let mut page = Page::new(evil, evil);
        page.verdict(Tone::Bad, evil, evil);
        page.facts([(evil, evil)]);
        page.table(&[Column::text("a"), Column::number("b")], &[vec![evil.into(), evil.into()]]);
        page.figure("<svg/>", evil);
        page.pre(evil);
        let html = page.finish();
        assert!(!html.contains("<script") && !html.contains('\x1b'), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    }

    #[test]
    fn a_page_is_one_file() {
        let html = Page::new("a", "b").finish();
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
