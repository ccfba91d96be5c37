//! The worst pairs of a set as one HTML page.

use std::fmt::Write as _;

use super::plot::escape;
use super::{PairScore, Report};

/// A pair on the page. Picture paths are relative to the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What the pair contributed.
    pub score: PairScore,
    /// Pictures with a caption each, such as template, frame, map, truth.
    pub pictures: Vec<(String, String)>,
}

/// The page: the report's table and the entries in the order given.
#[must_use]
pub fn gallery_html(title: &str, report: &Report, charts: &[String], entries: &[Entry]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\n<style>\
         body{{font-family:sans-serif;margin:1.5rem;background:#fafafa;color:#222}}\
         pre{{background:#fff;border:1px solid #ddd;padding:.8rem;overflow:auto}}\
         .pair{{background:#fff;border:1px solid #ddd;margin:.8rem 0;padding:.6rem}}\
         figure{{display:inline-block;margin:.3rem}}figcaption{{font-size:.8rem;color:#555}}\
         figure img{{max-width:320px;image-rendering:pixelated}}</style>\n<h1>{0}</h1>\n<pre>{1}</pre>\n",
        escape(title),
        escape(&report.to_string())
    );
    for chart in charts {
        let _ = writeln!(out, "<img src=\"{}\" alt=\"chart\">", escape(chart));
    }
    let _ = writeln!(out, "<h2>Worst pairs</h2>");
    for e in entries {
        let s = &e.score;
        let ap = s.pixel_ap.map_or_else(|| "no defective pixel".to_string(), |v| format!("pixel AP {:.1} %", 100.0 * v));
        let _ = write!(
            out,
            "<div class=\"pair\"><b>{}</b>{} &mdash; {} of {} defects missed, {} false alarms, {ap}<br>",
            escape(&s.pair),
            if s.refused { " (registration refused)" } else { "" },
            s.missed,
            s.defects,
            s.false_alarms
        );
        for (caption, path) in &e.pictures {
            let _ = write!(
                out,
                "<figure><img src=\"{}\" alt=\"{1}\"><figcaption>{1}</figcaption></figure>",
                escape(path),
                escape(caption)
            );
        }
        out.push_str("</div>\n");
    }
    out.push_str("</html>\n");
    out
}
