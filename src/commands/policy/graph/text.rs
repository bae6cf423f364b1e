//! The graph for Graphviz and for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::model::{Edge, Graph, Kind};
use crate::output;

/// Writes the graph for Graphviz.
pub(super) fn dot(to: &mut impl Write, graph: &Graph) -> io::Result<()> {
    writeln!(to, "digraph policies {{")?;
    writeln!(to, "  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];")?;
    for node in &graph.nodes {
        writeln!(to, "  {};", quoted(node))?;
    }
    for edge in &graph.edges {
        let (colour, style) = match edge.kind {
            Kind::Allowed => ("#1d4ed8", "solid"),
            Kind::Used => ("#15803d", "bold"),
            Kind::Unused => ("#6b7280", "dashed"),
            Kind::Denied => ("#b91c1c", "dotted"),
        };
        let why = edge.because.join("\n");
        writeln!(
            to,
            "  {} -> {} [color=\"{colour}\", style={style}, tooltip={}];",
            quoted(graph.name(edge.from)),
            quoted(graph.name(edge.to)),
            quoted(&why)
        )?;
    }
    writeln!(to, "}}")
}

// What is shown has its backslashes and controls escaped already, as Graphviz reads them; a quote is left.
fn quoted(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| audit::shown(line).replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}

/// Writes the graph for programs.
pub(super) fn json(to: &mut impl Write, graph: &Graph) -> io::Result<()> {
    let edges =
        graph.edges.iter().map(|edge| Arrow { from: graph.name(edge.from), to: graph.name(edge.to), edge });
    let document = Document {
        schema: "vouchsafe/policy-graph/v1",
        nodes: &graph.nodes,
        edges: edges.collect(),
        left_out: graph.left_out,
    };
    output::json(to, &document)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    nodes: &'a [String],
    edges: Vec<Arrow<'a>>,
    left_out: u64,
}

#[derive(Serialize)]
struct Arrow<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(flatten)]
    edge: &'a Edge,
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{RULES, graph};
    use super::*;

    #[test]
    fn graphviz_reads_names_with_quotes() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
    }

    #[test]
    fn every_node_and_arrow_is_written() {
        let mut bytes = Vec::new();
        dot(&mut bytes, &graph(RULES)).unwrap();
        let text = String::from_utf8(bytes).unwrap();

        assert!(text.starts_with("digraph policies {"), "{text}");
        assert_eq!(text.matches(" -> ").count(), 2, "{text}");
    }

    #[test]
    fn programs_are_told_names_kinds_and_reasons() {
        let mut bytes = Vec::new();
        json(&mut bytes, &graph(RULES)).unwrap();

        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["schema"], "vouchsafe/policy-graph/v1");
        assert_eq!(value["edges"][1]["from"], "spiffe://a.test/web");
        assert_eq!(value["edges"][1]["kind"], "allowed");
        assert_eq!(value["edges"][1]["because"][0], "p/a (p.yaml:5): GET, port 80");
    }
}
