//! Newest wins: of the views that the page asks for while one is being computed, only the last one is sent.

/// Decides which of a stream of requests is sent when.
#[derive(Debug)]
pub struct NewestWins<T> {
    in_flight: bool,
    waiting: Option<T>,
}

impl<T> Default for NewestWins<T> {
    fn default() -> Self {
        Self { in_flight: false, waiting: None }
    }
}

impl<T> NewestWins<T> {
    /// A new request: given back when it is to be sent now, kept (in place of an older one) otherwise.
    pub fn offer(&mut self, request: T) -> Option<T> {
        if self.in_flight {
            self.waiting = Some(request);
            return None;
        }
        self.in_flight = true;
        Some(request)
    }

    /// The one in flight has ended: the request to send next, if one waits.
    pub fn ended(&mut self) -> Option<T> {
        let next = self.waiting.take();
        self.in_flight = next.is_some();
        next
    }

    /// Whether a newer request waits.
    pub fn is_superseded(&self) -> bool {
        self.waiting.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_of_those_that_wait_is_sent() {
        let mut queue = NewestWins::default();
        assert_eq!(queue.offer(1), Some(1));
        assert_eq!(queue.offer(2), None);
        assert_eq!(queue.offer(3), None);
        assert!(queue.is_superseded());
        assert_eq!(queue.ended(), Some(3));
        assert_eq!(queue.ended(), None);
        assert_eq!(queue.offer(4), Some(4));
    }
}
