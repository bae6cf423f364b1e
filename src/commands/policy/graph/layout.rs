//! Where the nodes of the picture stand: in layers from left to right, callers before those they call.
//!
//! The same graph is always laid out the same way. Arrows that close a circle are turned round for the layering only.

use std::collections::BTreeMap;

/// The place of each node: its layer, and its row in the layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) layers: usize,
    /// Rows of the fullest layer.
    pub(super) rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) row: usize,
    /// Rows of its layer.
    pub(super) of: usize,
}

/// Lays out nodes `0..nodes` with arrows between them.
pub(super) fn lay_out(nodes: usize, arrows: &[(usize, usize)]) -> Layout {
    let forward = without_circles(nodes, arrows);
    let layer = layers(nodes, &forward);
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (node, layer) in layer.iter().enumerate() {
        rows.entry(*layer).or_default().push(node);
    }
    let mut row = vec![0_usize; nodes];
    rows.values().for_each(|members| place_rows(members, &mut row));
    let neighbours = neighbours(nodes, &forward);
    for sweep in 0..SWEEPS {
        let mut order: Vec<usize> = rows.keys().copied().collect();
        if sweep % 2 == 1 {
            order.reverse();
        }
        for number in order {
            if let Some(members) = rows.get_mut(&number) {
                sort_by_neighbours(members, &row, &neighbours);
                place_rows(members, &mut row);
            }
        }
    }
    let size = |layer: &usize| rows.get(layer).map_or(0, Vec::len);
    let places =
        layer.iter().zip(&row).map(|(layer, row)| Place { layer: *layer, row: *row, of: size(layer) });
    let places: Vec<Place> = places.collect();
    let fullest = rows.values().map(Vec::len).max().unwrap_or(0);
    Layout { places, layers: rows.keys().last().map_or(0, |last| last + 1), rows: fullest }
}

// Arrows without those from a node to itself, those that close a circle turned round. Depth first, without recursion: a
// chain may be as long as there are nodes.
fn without_circles(nodes: usize, arrows: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (from, to) in arrows.iter().filter(|(from, to)| from != to) {
        if let Some(list) = next.get_mut(*from) {
            list.push(*to);
        }
    }
    next.iter_mut().for_each(|list| {
        list.sort_unstable();
        list.dedup();
    });
    let mut state = vec![State::Fresh; nodes];
    let mut forward = Vec::new();
    for root in 0..nodes {
        if state.get(root) != Some(&State::Fresh) {
            continue;
        }
        let mut path = vec![(root, 0)];
        set(&mut state, root, State::OnPath);
        while let Some((node, at)) = path.last_mut() {
            let from = *node;
            let Some(to) = next.get(from).and_then(|list| list.get(*at)).copied() else {
                set(&mut state, from, State::Done);
                path.pop();
                continue;
            };
            *at += 1;
            match state.get(to) {
                Some(State::OnPath) => forward.push((to, from)),
                Some(State::Fresh) => {
                    forward.push((from, to));
                    set(&mut state, to, State::OnPath);
                    path.push((to, 0));
                }
                Some(State::Done) | None => forward.push((from, to)),
            }
        }
    }
    forward
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    OnPath,
    Done,
}

fn set(state: &mut [State], node: usize, value: State) {
    if let Some(place) = state.get_mut(node) {
        *place = value;
    }
}

// The longest way to each node, counted in arrows; one pass over the nodes in an order in which no arrow leads back.
fn layers(nodes: usize, forward: &[(usize, usize)]) -> Vec<usize> {
    let mut before = vec![0_usize; nodes];
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (from, to) in forward {
        if let (Some(list), Some(count)) = (next.get_mut(*from), before.get_mut(*to)) {
            list.push(*to);
            *count += 1;
        }
    }
    let mut ready: Vec<usize> = (0..nodes).filter(|node| before.get(*node) == Some(&0)).collect();
    let mut layer = vec![0_usize; nodes];
    while let Some(node) = ready.pop() {
        let here = layer.get(node).copied().unwrap_or_default();
        for to in next.get(node).into_iter().flatten() {
            if let Some(there) = layer.get_mut(*to) {
                *there = (*there).max(here + 1);
            }
            if let Some(count) = before.get_mut(*to) {
                *count -= 1;
                if *count == 0 {
                    ready.push(*to);
                }
            }
        }
    }
    layer
}

fn place_rows(members: &[usize], row: &mut [usize]) {
    for (at, node) in members.iter().enumerate() {
        if let Some(place) = row.get_mut(*node) {
            *place = at;
        }
    }
}

fn neighbours(nodes: usize, forward: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (from, to) in forward {
        for (node, other) in [(from, to), (to, from)] {
            if let Some(list) = neighbours.get_mut(*node) {
                list.push(*other);
            }
        }
    }
    neighbours
}

// Nodes go where the middle of their neighbours is; those without keep their order.
fn sort_by_neighbours(members: &mut [usize], row: &[usize], neighbours: &[Vec<usize>]) {
    let at = |node: &usize| row.get(*node).copied().unwrap_or_default();
    members.sort_by_cached_key(|node| {
        let near = neighbours.get(*node).map(Vec::as_slice).unwrap_or_default();
        let sum: usize = near.iter().map(at).sum();
        let middle = (sum * SCALE).checked_div(near.len()).unwrap_or_else(|| at(node) * SCALE);
        (middle, *node)
    });
}

const SWEEPS: usize = 8;
const SCALE: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn layers_of(nodes: usize, arrows: &[(usize, usize)]) -> Vec<usize> {
        lay_out(nodes, arrows).places.iter().map(|place| place.layer).collect()
    }

    #[test]
    fn callers_stand_before_those_they_call() {
        assert_eq!(layers_of(3, &[(0, 1), (1, 2), (0, 2)]), [0, 1, 2]);
        assert_eq!(layers_of(3, &[(2, 0)]), [1, 0, 0]);
        assert_eq!(layers_of(1, &[(0, 0)]), [0]);
        assert!(layers_of(0, &[]).is_empty());
    }

    #[test]
    fn a_circle_is_laid_out_all_the_same() {
        assert_eq!(layers_of(3, &[(0, 1), (1, 2), (2, 0)]), [0, 1, 2]);
        assert_eq!(layers_of(2, &[(0, 1), (1, 0)]), [0, 1]);
    }

    #[test]
    fn no_two_nodes_stand_in_the_same_place() {
        let arrows: Vec<(usize, usize)> =
            (0..60).map(|number| (number % 30, (number * 7 + 3) % 30)).collect();

        let layout = lay_out(30, &arrows);

        let mut places: Vec<_> = layout.places.iter().map(|place| (place.layer, place.row)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 30);
        assert_eq!(layout, lay_out(30, &arrows));
    }

    #[test]
    fn arrows_that_need_not_cross_do_not() {
        let layout = lay_out(4, &[(0, 3), (1, 2)]);

        let row = |node: usize| layout.places[node].row;
        assert_eq!(row(0) < row(1), row(3) < row(2));
    }

    #[test]
    fn a_long_chain_is_laid_out() {
        let arrows: Vec<(usize, usize)> = (0..9_999).map(|node| (node, node + 1)).collect();

        assert_eq!(lay_out(10_000, &arrows).layers, 10_000);
    }
}
