//! Settings of the servers that make a story shorter, and are taken back at its end.

use super::docker::Node;

/// Settings that are in force on these nodes until it is dropped.
pub struct Tuning {
    nodes: Vec<Node>,
    names: Vec<&'static str>,
}

impl Tuning {
    pub fn new(nodes: &[&Node], settings: &[(&'static str, &str)]) -> Self {
        for node in nodes {
            change(node, settings.iter().map(|(name, value)| format!("ALTER SYSTEM SET {name} = '{value}'")));
        }
        Self { nodes: nodes.iter().copied().cloned().collect(), names: settings.iter().map(|(name, _)| *name).collect() }
    }
}

impl Drop for Tuning {
    fn drop(&mut self) {
        // A story that broke off leaves servers that may not answer, and has said so already.
        for node in self.nodes.iter().filter(|node| node.answers()) {
            change(node, self.names.iter().map(|name| format!("ALTER SYSTEM RESET {name}")));
        }
    }
}

fn change(node: &Node, statements: impl Iterator<Item = String>) {
    let statements: Vec<String> = statements.chain(["SELECT pg_reload_conf()".to_owned()]).collect();
    node.sql(&statements.iter().map(String::as_str).collect::<Vec<_>>());
}
