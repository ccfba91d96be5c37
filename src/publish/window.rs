//! Which packet id stands for what: the correlation of acknowledgements within one connection.
//!
//! A packet id is taken when a QoS 1 message is written and freed by its acknowledgement; it is never in use twice. The window belongs to
//! one connection and dies with it, so an acknowledgement can never be taken for a message of another connection.

use std::collections::{HashMap, VecDeque};

/// Packet ids in use and what they stand for. `T`: the caller's ticket; times are the caller's, ascending.
#[derive(Debug)]
pub(crate) struct Window<T> {
    last_id: u16,
    flying: HashMap<u16, (T, u64)>,
    /// Ids in the order of sending, for the age of the oldest; acknowledged ones are dropped when they come to the front.
    order: VecDeque<(u16, u64)>,
    serial: u64,
}

impl<T> Window<T> {
    pub(crate) fn new() -> Self {
        Self { last_id: 0, flying: HashMap::new(), order: VecDeque::new(), serial: 0 }
    }

    /// Messages without an acknowledgement.
    pub(crate) fn len(&self) -> usize {
        self.flying.len()
    }

    /// A free id (1 to 65 535) for a message.
    ///
    /// # Panics
    /// With 65 535 messages under way; the caller's limits are far below.
    pub(crate) fn send(&mut self, ticket: T) -> u16 {
        assert!(self.flying.len() < usize::from(u16::MAX), "packet ids used up");
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.flying.contains_key(&self.last_id) {
                break;
            }
        }
        self.serial += 1;
        self.flying.insert(self.last_id, (ticket, self.serial));
        self.order.push_back((self.last_id, self.serial));
        // One message that is never acknowledged must not make this grow with those that are.
        if self.order.len() > 2 * self.flying.len() + 64 {
            let flying = &self.flying;
            self.order.retain(|(id, serial)| flying.get(id).is_some_and(|(_, s)| s == serial));
        }
        self.last_id
    }

    /// The message that id stands for; nothing for an id not in use (a second acknowledgement, or one nobody asked for).
    pub(crate) fn settle(&mut self, id: u16) -> Option<T> {
        let (ticket, _) = self.flying.remove(&id)?;
        while let Some((front, serial)) = self.order.front() {
            if self.flying.get(front).is_some_and(|(_, s)| s == serial) {
                break;
            }
            self.order.pop_front();
        }
        Some(ticket)
    }

    /// How many messages had been sent before the oldest unacknowledged one; `None` with none under way. Unchanged means that the broker
    /// has not acknowledged it since.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.order.front().map(|(_, serial)| *serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_while_in_use_and_acknowledged_once() {
        let mut window = Window::new();
        let ids: Vec<u16> = (0..5).map(|i| window.send(i)).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert_eq!(window.settle(3), Some(2));
        assert_eq!(window.settle(3), None);
        assert_eq!(window.settle(77), None);
        assert_eq!(window.oldest(), Some(1));
        assert_eq!(window.settle(1), Some(0));
        assert_eq!(window.settle(2), Some(1));
        assert_eq!(window.oldest(), Some(4));
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn ids_wrap_around_those_in_use() {
        let mut window = Window::new();
        assert_eq!(window.send(0_u32), 1);
        for i in 2..=65_535_u32 {
            let id = window.send(i);
            assert_eq!(u32::from(id), i);
            assert_eq!(window.settle(id), Some(i));
        }
        assert_eq!(window.send(9), 2, "1 is still in use, 0 is no id");
        assert_eq!(window.len(), 2);
        assert!(window.order.len() <= 2 * 2 + 65, "{}", window.order.len());
        assert_eq!(window.oldest(), Some(1));
    }
}
