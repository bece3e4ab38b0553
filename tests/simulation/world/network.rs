//! The network: between the checker and each node, between the nodes, between the app and the nodes. Each way can be cut by itself.

use std::time::Duration;

/// What is cut, and how bad the rest is.
#[derive(Debug, Default)]
pub struct Network {
    /// The checker does not reach this node. Packets vanish: a probe waits for its deadline.
    pub checker_cut: [bool; 2],
    /// The standby does not reach the primary, whichever is which. An open stream stands still and ends by its timeout.
    pub pair_cut: bool,
    /// The app does not reach this node.
    pub app_cut: [bool; 2],
    /// This node's container is on no network at all.
    pub detached: [bool; 2],
    /// So many of a hundred of the checker's probes get no answer.
    pub loss: u32,
    /// The checker's probes take up to so long.
    pub delay: Duration,
}

impl Network {
    /// Does a node's word reach its peer?
    pub fn joins_the_pair(&self) -> bool {
        !self.pair_cut && self.detached == [false, false]
    }
}
