//! Which requests are cancelled or paused, and letting the event loop run so that a page's wish arrives.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use futures::channel::oneshot;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessagePort};

use super::RequestId;
use super::post;
use crate::protocol::ErrorReport;

/// Longest stretch of work between two looks at the event loop, milliseconds.
const MAX_BUSY_MS: f64 = 12.0;

thread_local! {
    static CANCELLED: RefCell<HashSet<RequestId>> = RefCell::default();
    /// Connections whose page is gone, and with it whoever waits for an answer.
    static CLOSED: RefCell<HashSet<u32>> = RefCell::default();
    /// Paused requests, with what wakes each once it has noticed; dropping it wakes too.
    static PAUSED: RefCell<HashMap<RequestId, Option<oneshot::Sender<()>>>> = RefCell::default();
    /// How long each request was held, milliseconds.
    static PAUSED_MS: RefCell<HashMap<RequestId, f64>> = RefCell::default();
    static OWN_TASKS: OwnTasks = OwnTasks::open();
    /// The views under way, at most one of each page.
    static PREFERRED: RefCell<HashSet<RequestId>> = RefCell::default();
}

/// Cancels a request, paused or not; nothing happens when it has ended.
pub fn cancel(id: RequestId) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.insert(id));
    resume(id);
}

/// Holds a request at its next breath.
pub fn pause(id: RequestId) {
    PAUSED.with_borrow_mut(|paused| {
        paused.entry(id).or_default();
    });
}

/// Lets a paused request go on.
pub fn resume(id: RequestId) {
    // Dropped after the borrow ends: waking must find the map free.
    drop(PAUSED.with_borrow_mut(|paused| paused.remove(&id)));
}

/// A request has ended.
pub fn forget(id: RequestId) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.remove(&id));
    PAUSED_MS.with_borrow_mut(|paused_ms| paused_ms.remove(&id));
    resume(id);
}

/// Ends every request of a connection whose page is gone.
pub fn close(connection: u32) {
    CLOSED.with_borrow_mut(|closed| closed.insert(connection));
    let is_of_it = |id: &RequestId| id.connection == connection;
    let paused: Vec<RequestId> =
        PAUSED.with_borrow(|paused| paused.keys().copied().filter(is_of_it).collect());
    paused.into_iter().for_each(resume);
}

/// How long a request has been held so far, milliseconds.
pub fn paused_ms(id: RequestId) -> f64 {
    PAUSED_MS.with_borrow(|paused_ms| paused_ms.get(&id).copied().unwrap_or_default())
}

/// Waits, without turning, while a request is paused.
async fn while_paused(id: RequestId) {
    let wake = PAUSED.with_borrow_mut(|paused| {
        let (sender, receiver) = oneshot::channel();
        paused.get_mut(&id).map(|waker| {
            *waker = Some(sender);
            receiver
        })
    });
    let Some(wake) = wake else { return };
    let start_ms = super::now_ms();
    // Whether it was sent or dropped, the pause is over.
    let _ = wake.await;
    let held_ms = super::now_ms() - start_ms;
    PAUSED_MS.with_borrow_mut(|paused_ms| *paused_ms.entry(id).or_default() += held_ms);
}

/// Fails once a request is cancelled or its page is gone.
pub fn check(id: RequestId) -> Result<(), ErrorReport> {
    let is_closed = CLOSED.with_borrow(|closed| closed.contains(&id.connection));
    if is_closed || CANCELLED.with_borrow(|cancelled| cancelled.contains(&id)) {
        return Err(post::error("cancelled", "cancelled"));
    }
    Ok(())
}

/// While a view is under way, everything that is none waits for it: someone looks at the page.
pub fn prefer(view: RequestId) {
    PREFERRED.with_borrow_mut(|preferred| preferred.insert(view));
}

/// The view has ended, or a newer one takes its place.
pub fn prefer_no_longer(view: RequestId) {
    PREFERRED.with_borrow_mut(|preferred| preferred.remove(&view));
}

/// Waits while others are preferred; fails when this one is cancelled meanwhile.
async fn while_others_are_preferred(id: RequestId) -> Result<(), ErrorReport> {
    while PREFERRED.with_borrow(|preferred| !preferred.is_empty() && !preferred.contains(&id)) {
        next_task().await;
        check(id)?;
    }
    Ok(())
}

/// Keeps one request from blocking the worker's event loop.
pub struct Breather {
    id: RequestId,
    since_ms: f64,
}

impl Breather {
    /// For request `id`.
    pub fn new(id: RequestId) -> Self {
        Self { id, since_ms: super::now_ms() }
    }

    /// Lets the event loop run if it has not for a while, and waits while the request is paused or a view goes first; fails
    /// when it was cancelled meanwhile.
    pub async fn breathe(&mut self) -> Result<(), ErrorReport> {
        if super::now_ms() - self.since_ms > MAX_BUSY_MS {
            next_task().await;
            while_paused(self.id).await;
            while_others_are_preferred(self.id).await?;
            self.since_ms = super::now_ms();
        }
        check(self.id)
    }
}

/// A channel from the worker to itself, and those who wait for what was posted on it, in order. One for all: a channel
/// of its own for each wait could be collected while its message is on the way, and the wait would never end.
struct OwnTasks {
    to: MessagePort,
    waiting: Rc<RefCell<VecDeque<oneshot::Sender<()>>>>,
}

impl OwnTasks {
    fn open() -> Self {
        let channel = MessageChannel::new().expect("workers have message channels");
        let waiting = Rc::new(RefCell::new(VecDeque::<oneshot::Sender<()>>::new()));
        let woken = Rc::clone(&waiting);
        let wake = Closure::<dyn FnMut()>::new(move || {
            let first = woken.borrow_mut().pop_front();
            // Who no longer waits need not be woken.
            let _ = first.map(|first| first.send(()));
        });
        // Opens the port as well; it lasts as long as the worker.
        channel.port1().set_onmessage(Some(wake.into_js_value().unchecked_ref()));
        Self { to: channel.port2(), waiting }
    }
}

/// Resolves in a task of its own, after the messages that wait now. A message channel, because timers are held back
/// to 4 ms.
async fn next_task() {
    let woken = OWN_TASKS.with(|tasks| {
        let (wake, woken) = oneshot::channel();
        tasks.waiting.borrow_mut().push_back(wake);
        tasks.to.post_message(&JsValue::NULL).expect("null can be posted");
        woken
    });
    // The sender is kept until it has sent.
    let _ = woken.await;
}

#[cfg(test)]
mod tests {
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

    use super::*;
    use crate::protocol::Stage;
    use crate::worker::post::Reporter;

    wasm_bindgen_test_configure!(run_in_dedicated_worker);

    /// A request of the page that started the worker.
    fn own(number: u32) -> RequestId {
        RequestId { connection: 0, number }
    }

    /// Does `then` after a pause, from the event loop.
    fn after_ms(delay_ms: i32, then: impl FnOnce() + 'static) {
        let then = Closure::once_into_js(then);
        let scope = super::super::scope();
        scope
            .set_timeout_with_callback_and_timeout_and_arguments_0(then.unchecked_ref(), delay_ms)
            .expect("workers have timers");
    }

    /// Breathes until it is held once, or fails.
    async fn breathe_past_a_look(breather: &mut Breather) -> Result<(), ErrorReport> {
        breather.since_ms = f64::NEG_INFINITY;
        breather.breathe().await
    }

    #[wasm_bindgen_test]
    async fn a_view_goes_first_and_what_waits_for_it_can_be_cancelled() {
        let (mut view, mut job) = (Breather::new(own(31)), Breather::new(own(32)));
        prefer(own(31));
        assert!(breathe_past_a_look(&mut view).await.is_ok(), "the view itself goes on");
        after_ms(30, || prefer_no_longer(own(31)));
        let start_ms = super::super::now_ms();
        assert!(breathe_past_a_look(&mut job).await.is_ok());
        assert!(super::super::now_ms() - start_ms > 20.0, "the job waited");
        prefer(own(31));
        after_ms(30, || cancel(own(32)));
        assert!(breathe_past_a_look(&mut job).await.is_err(), "a waiting job can be cancelled");
        prefer_no_longer(own(31));
        forget(own(32));
    }

    #[wasm_bindgen_test]
    async fn a_paused_request_waits_and_its_clock_stands_still() {
        let (mut held, mut other) = (Breather::new(own(21)), Breather::new(own(22)));
        let reporter = Reporter::new(own(21), Stage::Detect);
        let start = super::super::now_ms();
        pause(own(21));
        after_ms(120, || resume(own(21)));
        assert!(breathe_past_a_look(&mut other).await.is_ok());
        assert!(super::super::now_ms() - start < 100.0, "another request is not held");
        assert!(breathe_past_a_look(&mut held).await.is_ok());
        let now = super::super::now_ms();
        assert!(now - start > 100.0, "held for {} ms", now - start);
        assert!(paused_ms(own(21)) > 80.0 && paused_ms(own(22)) == 0.0);
        assert!(reporter.elapsed_ms(now) < now - start - 80.0, "{} ms at work", reporter.elapsed_ms(now));
        assert!(breathe_past_a_look(&mut held).await.is_ok(), "resumed for good");
        forget(own(21));
        assert_eq!(paused_ms(own(21)), 0.0);
    }

    #[wasm_bindgen_test]
    async fn a_paused_request_can_be_cancelled() {
        let mut held = Breather::new(own(31));
        pause(own(31));
        after_ms(30, || cancel(own(31)));
        let outcome = breathe_past_a_look(&mut held).await;
        assert_eq!(outcome.map_err(|error| error.code), Err("cancelled".to_owned()));
        forget(own(31));
        assert!(breathe_past_a_look(&mut held).await.is_ok());
    }

    #[wasm_bindgen_test]
    async fn a_cancellation_arrives_while_a_request_works() {
        let channel = MessageChannel::new().expect("workers have message channels");
        let heard = Closure::once_into_js(|| cancel(own(7)));
        channel.port1().set_onmessage(Some(heard.unchecked_ref()));
        channel.port2().post_message(&JsValue::NULL).expect("null can be posted");
        let (mut cancelled, mut other) = (Breather::new(own(7)), Breather::new(own(8)));
        let start = super::super::now_ms();
        let mut outcome = Ok(());
        while outcome.is_ok() && super::super::now_ms() - start < 5000.0 {
            outcome = cancelled.breathe().await;
        }
        assert_eq!(outcome.map_err(|error| error.code), Err("cancelled".to_owned()));
        assert!(other.breathe().await.is_ok());
        forget(own(7));
        assert!(check(own(7)).is_ok());
    }

    #[wasm_bindgen_test]
    async fn views_of_two_pages_do_not_wait_for_each_other_and_a_closed_page_is_answered_no_more() {
        let theirs = |number| RequestId { connection: 5, number };
        let (mut view, mut their_view, mut their_job) =
            (Breather::new(own(41)), Breather::new(theirs(41)), Breather::new(theirs(42)));
        prefer(own(41));
        prefer(theirs(41));
        assert!(
            breathe_past_a_look(&mut view).await.is_ok()
                && breathe_past_a_look(&mut their_view).await.is_ok()
        );
        // A cancelled request of one page is none of the other's.
        cancel(own(41));
        assert!(check(own(41)).is_err() && check(theirs(41)).is_ok());
        pause(theirs(42));
        after_ms(30, || close(5));
        prefer_no_longer(own(41));
        prefer_no_longer(theirs(41));
        assert!(
            breathe_past_a_look(&mut their_job).await.is_err(),
            "paused, and nobody is left to resume it"
        );
        assert!(check(theirs(41)).is_err() && check(own(43)).is_ok());
        forget(own(41));
    }
}
