//! The picture: one SVG file without scripts, fonts or links of others, readable by eye for some dozens of services.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::layout::{Layout, Place, lay_out};
use super::model::{Edge, Graph, Kind};

/// Writes the picture.
pub(super) fn write(to: &mut impl Write, graph: &Graph) -> io::Result<()> {
    let arrows: Vec<(usize, usize)> = graph
        .edges
        .iter()
        .filter(|edge| edge.kind != Kind::Denied)
        .map(|edge| (edge.from, edge.to))
        .collect();
    // What was refused decides the place of a node only where nothing else does.
    let all: Vec<(usize, usize)> = if arrows.is_empty() {
        graph.edges.iter().map(|edge| (edge.from, edge.to)).collect()
    } else {
        arrows
    };
    let layout = lay_out(graph.nodes.len(), &all);
    let frame = Frame::of(&layout);
    writeln!(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\">",
        w = frame.width,
        h = frame.height
    )?;
    writeln!(to, "<title>Who may talk to whom</title>")?;
    writeln!(to, "<style>{STYLE}</style>")?;
    writeln!(to, "<rect class=\"paper\" width=\"{}\" height=\"{}\"/>", frame.width, frame.height)?;
    markers(to)?;
    for edge in &graph.edges {
        arrow(to, graph, edge, &layout, &frame)?;
    }
    for (node, place) in graph.nodes.iter().zip(&layout.places) {
        draw_node(to, node, &frame.corner(place))?;
    }
    legend(to, graph, &frame)?;
    writeln!(to, "</svg>")
}

/// The measures of the picture.
struct Frame {
    width: usize,
    height: usize,
    rows: usize,
}

#[derive(Clone, Copy)]
struct Point {
    x: usize,
    y: usize,
}

impl Frame {
    fn of(layout: &Layout) -> Self {
        let columns = layout.layers.max(1);
        Self {
            width: (2 * MARGIN + columns * NODE_WIDTH + (columns - 1) * LAYER_GAP).max(MIN_WIDTH),
            height: 2 * MARGIN + layout.rows.max(1) * ROW + LEGEND,
            rows: layout.rows,
        }
    }

    // Layers with fewer nodes stand in the middle.
    fn corner(&self, place: &Place) -> Point {
        let above = (self.rows - place.of.min(self.rows)) * ROW / 2;
        Point { x: MARGIN + place.layer * (NODE_WIDTH + LAYER_GAP), y: MARGIN + above + place.row * ROW }
    }
}

fn markers(to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "<defs>")?;
    for kind in [Kind::Allowed, Kind::Used, Kind::Unused, Kind::Denied] {
        writeln!(
            to,
            "<marker id=\"{0}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head {0}\" d=\"M0 0 10 5 0 10z\"/></marker>",
            kind.as_str()
        )?;
    }
    writeln!(to, "</defs>")
}

fn arrow(to: &mut impl Write, graph: &Graph, edge: &Edge, layout: &Layout, frame: &Frame) -> io::Result<()> {
    let (Some(start), Some(end)) = (layout.places.get(edge.from), layout.places.get(edge.to)) else {
        return Ok(());
    };
    let path = curve(frame.corner(start), frame.corner(end));
    let kind = edge.kind.as_str();
    let mut title = format!("{} -> {} ({kind})", graph.name(edge.from), graph.name(edge.to));
    for reason in edge.because.iter().take(SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(title, "\n{reason}");
    }
    if let Some(more) = edge.because.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = write!(title, "\nand {more} more");
    }
    if edge.calls > 0 {
        let _ = write!(title, "\ncalls on record: {}", edge.calls);
    }
    writeln!(
        to,
        "<g class=\"edge\"><path class=\"wide\" d=\"{path}\"/><path class=\"line {kind}\" d=\"{path}\" \
         marker-end=\"url(#{kind})\"/><title>{}</title></g>",
        escape(&title)
    )
}

// To the right a plain curve; back or within a layer a bow below both.
fn curve(start: Point, end: Point) -> String {
    let half = NODE_HEIGHT / 2;
    if start.x < end.x {
        let (x0, y0, x1, y1) = (start.x + NODE_WIDTH, start.y + half, end.x, end.y + half);
        let bend = (x1 - x0) / 2;
        return format!("M{x0} {y0}C{} {y0} {} {y1} {x1} {y1}", x0 + bend, x1 - bend);
    }
    let (x0, y0) = (start.x + NODE_WIDTH * 2 / 3, start.y + NODE_HEIGHT);
    let (x1, y1) = (end.x + NODE_WIDTH / 3, end.y + NODE_HEIGHT);
    let low = y0.max(y1) + BOW;
    format!("M{x0} {y0}C{x0} {low} {x1} {low} {x1} {y1}")
}

fn draw_node(to: &mut impl Write, name: &str, corner: &Point) -> io::Result<()> {
    let (large, small) = labels(name);
    let Point { x, y } = corner;
    writeln!(
        to,
        "<g class=\"node\"><rect x=\"{x}\" y=\"{y}\" width=\"{NODE_WIDTH}\" height=\"{NODE_HEIGHT}\" rx=\"6\"/>\
         <text class=\"large\" x=\"{}\" y=\"{}\">{}</text><text class=\"small\" x=\"{}\" y=\"{}\">{}</text>\
         <title>{}</title></g>",
        x + PAD,
        y + LARGE_LINE,
        escape(&large),
        x + PAD,
        y + SMALL_LINE,
        escape(&small),
        escape(name)
    )
}

// The last segment is what people call a service; what leads to it is small.
fn labels(name: &str) -> (String, String) {
    let Some(rest) = name.strip_prefix("spiffe://") else { return (cut(name, LARGE_LETTERS), String::new()) };
    match rest.rsplit_once('/') {
        Some((before, last)) if last.contains('*') => match before.rsplit_once('/') {
            Some((first, kind)) => (cut(&format!("{kind}/{last}"), LARGE_LETTERS), cut(first, SMALL_LETTERS)),
            None => (cut(last, LARGE_LETTERS), cut(before, SMALL_LETTERS)),
        },
        Some((before, last)) => (cut(last, LARGE_LETTERS), cut(before, SMALL_LETTERS)),
        None => (cut(rest, LARGE_LETTERS), String::new()),
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn legend(to: &mut impl Write, graph: &Graph, frame: &Frame) -> io::Result<()> {
    let kinds: &[(Kind, &str)] = if graph.watched {
        &[
            (Kind::Used, "allowed and on record"),
            (Kind::Unused, "allowed, not on record"),
            (Kind::Denied, "refused, on record"),
        ]
    } else {
        &[(Kind::Allowed, "allowed")]
    };
    let y = frame.height - LEGEND / 2;
    for (number, (kind, words)) in kinds.iter().enumerate() {
        let x = MARGIN + number * LEGEND_STEP;
        writeln!(
            to,
            "<path class=\"line {0}\" d=\"M{x} {y}H{1}\" marker-end=\"url(#{0})\"/><text class=\"small\" x=\"{2}\" y=\"{3}\">{words}</text>",
            kind.as_str(),
            x + LEGEND_LINE,
            x + LEGEND_LINE + PAD,
            y + 4
        )?;
    }
    if graph.left_out > 0 {
        let y = y + 18;
        writeln!(
            to,
            "<text class=\"small\" x=\"{MARGIN}\" y=\"{y}\">{} more refused calls are not drawn</text>",
            graph.left_out
        )?;
    }
    Ok(())
}

// What XML reads as markup, and what it does not allow at all.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push('\n'),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}')
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

const MARGIN: usize = 24;
const NODE_WIDTH: usize = 190;
const NODE_HEIGHT: usize = 40;
const ROW: usize = 58;
const LAYER_GAP: usize = 130;
const LEGEND: usize = 60;
const LEGEND_STEP: usize = 220;
const LEGEND_LINE: usize = 36;
const MIN_WIDTH: usize = 2 * MARGIN + 3 * LEGEND_STEP;
const BOW: usize = 26;
const PAD: usize = 10;
const LARGE_LINE: usize = 17;
const SMALL_LINE: usize = 32;
const LARGE_LETTERS: usize = 24;
const SMALL_LETTERS: usize = 30;
/// Reasons shown for one arrow.
const SHOWN: usize = 12;

const STYLE: &str = "\
.paper{fill:#fff}.node rect{fill:#f8fafc;stroke:#334155}\
text{font-family:ui-sans-serif,system-ui,sans-serif;fill:#0f172a}.large{font-size:13px;font-weight:600}\
.small{font-size:10.5px;fill:#475569}.line{fill:none;stroke-width:1.4}.wide{fill:none;stroke:transparent;stroke-width:9}\
.edge:hover .line{stroke-width:3}.line.allowed{stroke:#1d4ed8}.line.used{stroke:#15803d;stroke-width:2}\
.line.unused{stroke:#6b7280;stroke-dasharray:7 4}.line.denied{stroke:#b91c1c;stroke-dasharray:2 3;stroke-width:1.8}\
.head.allowed{fill:#1d4ed8}.head.used{fill:#15803d}.head.unused{fill:#6b7280}.head.denied{fill:#b91c1c}";

#[cfg(test)]
mod tests {
    use super::super::model::tests::{RULES, graph};
    use super::*;

    #[test]
    fn the_picture_is_the_same_each_time_and_has_every_node_and_arrow() {
        let first = drawn(RULES);

        assert_eq!(first, drawn(RULES));
        assert_eq!(first.matches("class=\"node\"").count(), 3);
        assert_eq!(first.matches("class=\"edge\"").count(), 2);
        assert!(first.contains("<title>spiffe://a.test/batch/*</title>"), "{first}");
    }

    #[test]
    fn nothing_in_the_picture_is_fetched_or_run() {
        let picture = drawn(RULES);

        for word in ["<script", "href", "@import", "url(http", "<image", "onload"] {
            assert!(!picture.contains(word), "{word}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a b=\"c\">&'\u{0}\n"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}\n");
    }

    #[test]
    fn a_node_is_called_by_its_last_segment() {
        let labels = |name: &str| labels(name);

        assert_eq!(
            labels("spiffe://a.test/ns/shop/sa/web"),
            ("web".to_owned(), "a.test/ns/shop/sa".to_owned())
        );
        assert_eq!(labels("spiffe://a.test/ns/dev/**"), ("dev/**".to_owned(), "a.test/ns".to_owned()));
        assert_eq!(labels("anyone"), ("anyone".to_owned(), String::new()));
        assert_eq!(labels(&format!("spiffe://a.test/{}", "x".repeat(99))).0.chars().count(), LARGE_LETTERS);
    }

    fn drawn(rules: &str) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, &graph(rules)).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
