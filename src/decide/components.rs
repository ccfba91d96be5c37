//! Components of runs by union-find, in two rounds: 8-connected pieces with hysteresis, then pieces near each other as one.

use std::num::NonZeroU32;

use super::runs::Run;

/// A component's number, from 1 in the order of its first run; none = the run belongs to no kept component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Label(Option<NonZeroU32>);

impl Label {
    /// Index from 0.
    #[inline]
    pub fn get(self) -> Option<usize> {
        self.0.map(|n| n.get() as usize - 1)
    }
}

/// One row that has runs: `start..end` among all runs.
#[derive(Debug, Clone, Copy)]
struct RowSpan {
    y: u32,
    start: usize,
    end: usize,
}

#[derive(Debug, Default)]
pub(super) struct Components {
    parent: Vec<u32>,
    high: Vec<bool>,
    rows: Vec<RowSpan>,
    kept: Vec<u32>,
    labels: Vec<Label>,
    count: usize,
}

impl Components {
    /// One label a run, in the runs' order.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Number of kept components.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Labels `runs` (by row, then column). Pieces hang together when 8-connected; those without a high pixel are dropped; what is left
    /// and has at most `gap` pixels between (Chebyshev) is one component.
    pub fn label(&mut self, runs: &[Run], gap: usize) {
        self.parent.clear();
        self.parent.extend(0..runs.len() as u32);
        self.kept.clear();
        self.kept.extend(0..runs.len() as u32);
        self.join(runs, 0);

        self.high.clear();
        self.high.resize(runs.len(), false);
        for (i, run) in runs.iter().enumerate() {
            if run.high {
                let root = find(&mut self.parent, i as u32);
                self.high[root as usize] = true;
            }
        }
        let (parent, high) = (&mut self.parent, &self.high);
        self.kept.retain(|&i| high[find(parent, i) as usize]);
        if gap > 0 {
            self.join(runs, gap as u32);
        }

        self.labels.clear();
        self.labels.resize(runs.len(), Label::default());
        self.count = 0;
        for k in 0..self.kept.len() {
            let i = self.kept[k];
            // The smallest run of a component is its root, so a root is numbered before its other runs ask.
            let root = find(&mut self.parent, i);
            if root == i {
                self.count += 1;
                self.labels[i as usize] = Label(NonZeroU32::new(self.count as u32));
            } else {
                self.labels[i as usize] = self.labels[root as usize];
            }
        }
    }

    /// Joins the kept runs that have at most `gap` blank rows and at most `gap` blank columns between them.
    fn join(&mut self, runs: &[Run], gap: u32) {
        self.rows.clear();
        for (k, &i) in self.kept.iter().enumerate() {
            let y = runs[i as usize].y;
            match self.rows.last_mut() {
                Some(span) if span.y == y => span.end = k + 1,
                _ => self.rows.push(RowSpan { y, start: k, end: k + 1 }),
            }
        }
        for n in 0..self.rows.len() {
            let here = self.rows[n];
            for k in here.start + 1..here.end {
                let (a, b) = (self.kept[k - 1], self.kept[k]);
                if runs[b as usize].x0 <= runs[a as usize].x1 + gap {
                    union(&mut self.parent, a, b);
                }
            }
            for m in (0..n).rev() {
                let above = self.rows[m];
                if here.y - above.y > gap + 1 {
                    break;
                }
                let mut first = above.start;
                for k in here.start..here.end {
                    let run = &runs[self.kept[k] as usize];
                    while first < above.end && runs[self.kept[first] as usize].x1 + gap < run.x0 {
                        first += 1;
                    }
                    for j in first..above.end {
                        let other = self.kept[j];
                        if runs[other as usize].x0 > run.x1 + gap {
                            break;
                        }
                        union(&mut self.parent, other, self.kept[k]);
                    }
                }
            }
        }
    }
}

/// Root of `i`, halving the path on the way.
fn find(parent: &mut [u32], mut i: u32) -> u32 {
    while parent[i as usize] != i {
        let grand = parent[parent[i as usize] as usize];
        parent[i as usize] = grand;
        i = grand;
    }
    i
}

/// Joins two sets; the smaller index becomes the root.
fn union(parent: &mut [u32], a: u32, b: u32) {
    let (a, b) = (find(parent, a), find(parent, b));
    if a != b {
        parent[a.max(b) as usize] = a.min(b);
    }
}
