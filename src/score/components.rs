//! 8-connected components of a mask.

/// Labelled pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// 0 for background, else 1..=count, row-major; numbered in the order in which a row-major scan meets them.
    pub labels: Vec<u32>,
    /// Number of components.
    pub count: usize,
}

fn root(parent: &mut [u32], mut i: u32) -> u32 {
    while parent[i as usize] != i {
        parent[i as usize] = parent[parent[i as usize] as usize];
        i = parent[i as usize];
    }
    i
}

/// Labels the 8-connected components of the pixels for which `inside(index)` holds (two passes, union-find).
#[must_use]
pub fn label8(width: usize, height: usize, inside: impl Fn(usize) -> bool) -> Components {
    let mut labels = vec![0u32; width * height];
    let mut parent: Vec<u32> = vec![0];
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            if !inside(i) {
                continue;
            }
            let mut found = 0u32;
            let mut join = |l: u32| {
                if l != 0 {
                    if found == 0 {
                        found = root(&mut parent, l);
                    } else {
                        let (a, b) = (root(&mut parent, found), root(&mut parent, l));
                        let (low, high) = (a.min(b), a.max(b));
                        parent[high as usize] = low;
                        found = low;
                    }
                }
            };
            if x > 0 {
                join(labels[i - 1]);
            }
            if y > 0 {
                let up = i - width;
                if x > 0 {
                    join(labels[up - 1]);
                }
                join(labels[up]);
                if x + 1 < width {
                    join(labels[up + 1]);
                }
            }
            if found == 0 {
                found = parent.len() as u32;
                parent.push(found);
            }
            labels[i] = found;
        }
    }
    // Number the roots in scan order; a root is the smallest label of its component, so it was met first.
    let mut number = vec![0u32; parent.len()];
    let mut count = 0usize;
    for l in &mut labels {
        if *l != 0 {
            let r = root(&mut parent, *l) as usize;
            if number[r] == 0 {
                count += 1;
                number[r] = count as u32;
            }
            *l = number[r];
        }
    }
    Components { labels, count }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flood fill, the slow and obvious way.
    fn flood(width: usize, height: usize, mask: &[bool]) -> Components {
        let mut labels = vec![0u32; mask.len()];
        let mut count = 0;
        for start in 0..mask.len() {
            if !mask[start] || labels[start] != 0 {
                continue;
            }
            count += 1;
            let mut stack = vec![start];
            labels[start] = count as u32;
            while let Some(i) = stack.pop() {
                let (x, y) = ((i % width) as i64, (i / width) as i64);
                for dy in -1..=1 {
                    for dx in -1..=1 {
                        let (nx, ny) = (x + dx, y + dy);
                        if nx >= 0 && ny >= 0 && nx < width as i64 && ny < height as i64 {
                            let j = ny as usize * width + nx as usize;
                            if mask[j] && labels[j] == 0 {
                                labels[j] = count as u32;
                                stack.push(j);
                            }
                        }
                    }
                }
            }
        }
        Components { labels, count }
    }

    proptest::proptest! {
        #[test]
        fn equals_a_flood_fill(width in 1usize..24, height in 1usize..24, bits in proptest::collection::vec(0u8..5, 576), dense in 1u8..4) {
            let mask: Vec<bool> = (0..width * height).map(|i| bits[i] < dense).collect();
            proptest::prop_assert_eq!(label8(width, height, |i| mask[i]), flood(width, height, &mask));
        }
    }
}
