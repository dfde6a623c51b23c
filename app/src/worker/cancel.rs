//! Which requests are cancelled or paused, and letting the event loop run so that the page's wish arrives.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use futures::channel::oneshot;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessagePort};

use super::post;
use crate::protocol::ErrorReport;

/// Longest stretch of work between two looks at the event loop, milliseconds.
const MAX_BUSY_MS: f64 = 12.0;

thread_local! {
    static CANCELLED: RefCell<HashSet<u32>> = RefCell::default();
    /// Paused requests, with what wakes each once it has noticed; dropping it wakes too.
    static PAUSED: RefCell<HashMap<u32, Option<oneshot::Sender<()>>>> = RefCell::default();
    /// How long each request was held, milliseconds.
    static PAUSED_MS: RefCell<HashMap<u32, f64>> = RefCell::default();
    static OWN_TASKS: OwnTasks = OwnTasks::open();
    /// The view under way.
    static PREFERRED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Cancels a request, paused or not; nothing happens when it has ended.
pub fn cancel(id: u32) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.insert(id));
    resume(id);
}

/// Holds a request at its next breath.
pub fn pause(id: u32) {
    PAUSED.with_borrow_mut(|paused| {
        paused.entry(id).or_default();
    });
}

/// Lets a paused request go on.
pub fn resume(id: u32) {
    // Dropped after the borrow ends: waking must find the map free.
    drop(PAUSED.with_borrow_mut(|paused| paused.remove(&id)));
}

/// A request has ended.
pub fn forget(id: u32) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.remove(&id));
    PAUSED_MS.with_borrow_mut(|paused_ms| paused_ms.remove(&id));
    resume(id);
}

/// How long a request has been held so far, milliseconds.
pub fn paused_ms(id: u32) -> f64 {
    PAUSED_MS.with_borrow(|paused_ms| paused_ms.get(&id).copied().unwrap_or_default())
}

/// Waits, without turning, while a request is paused.
async fn while_paused(id: u32) {
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

/// Fails once a request is cancelled.
pub fn check(id: u32) -> Result<(), ErrorReport> {
    if CANCELLED.with_borrow(|cancelled| cancelled.contains(&id)) {
        return Err(post::error("cancelled", "cancelled"));
    }
    Ok(())
}

/// While a view is under way, everything else waits for it: someone looks at the page.
pub fn prefer(view: Option<u32>) {
    PREFERRED.set(view);
}

/// Waits while another request is preferred; fails when this one is cancelled meanwhile.
async fn while_another_is_preferred(id: u32) -> Result<(), ErrorReport> {
    while PREFERRED.get().is_some_and(|preferred| preferred != id) {
        next_task().await;
        check(id)?;
    }
    Ok(())
}

/// Keeps one request from blocking the worker's event loop.
pub struct Breather {
    id: u32,
    since_ms: f64,
}

impl Breather {
    /// For request `id`.
    pub fn new(id: u32) -> Self {
        Self { id, since_ms: super::now_ms() }
    }

    /// Lets the event loop run if it has not for a while, and waits while the request is paused or a view goes first; fails
    /// when it was cancelled meanwhile.
    pub async fn breathe(&mut self) -> Result<(), ErrorReport> {
        if super::now_ms() - self.since_ms > MAX_BUSY_MS {
            next_task().await;
            while_paused(self.id).await;
            while_another_is_preferred(self.id).await?;
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
        let (mut view, mut job) = (Breather::new(31), Breather::new(32));
        prefer(Some(31));
        assert!(breathe_past_a_look(&mut view).await.is_ok(), "the view itself goes on");
        after_ms(30, || prefer(None));
        let start_ms = super::super::now_ms();
        assert!(breathe_past_a_look(&mut job).await.is_ok());
        assert!(super::super::now_ms() - start_ms > 20.0, "the job waited");
        prefer(Some(31));
        after_ms(30, || cancel(32));
        assert!(breathe_past_a_look(&mut job).await.is_err(), "a waiting job can be cancelled");
        prefer(None);
        forget(32);
    }

    #[wasm_bindgen_test]
    async fn a_paused_request_waits_and_its_clock_stands_still() {
        let (mut held, mut other) = (Breather::new(21), Breather::new(22));
        let reporter = Reporter::new(21, Stage::Detect);
        let start = super::super::now_ms();
        pause(21);
        after_ms(120, || resume(21));
        assert!(breathe_past_a_look(&mut other).await.is_ok());
        assert!(super::super::now_ms() - start < 100.0, "another request is not held");
        assert!(breathe_past_a_look(&mut held).await.is_ok());
        let now = super::super::now_ms();
        assert!(now - start > 100.0, "held for {} ms", now - start);
        assert!(paused_ms(21) > 80.0 && paused_ms(22) == 0.0);
        assert!(reporter.elapsed_ms(now) < now - start - 80.0, "{} ms at work", reporter.elapsed_ms(now));
        assert!(breathe_past_a_look(&mut held).await.is_ok(), "resumed for good");
        forget(21);
        assert_eq!(paused_ms(21), 0.0);
    }

    #[wasm_bindgen_test]
    async fn a_paused_request_can_be_cancelled() {
        let mut held = Breather::new(31);
        pause(31);
        after_ms(30, || cancel(31));
        let outcome = breathe_past_a_look(&mut held).await;
        assert_eq!(outcome.map_err(|error| error.code), Err("cancelled".to_owned()));
        forget(31);
        assert!(breathe_past_a_look(&mut held).await.is_ok());
    }

    #[wasm_bindgen_test]
    async fn a_cancellation_arrives_while_a_request_works() {
        let channel = MessageChannel::new().expect("workers have message channels");
        let heard = Closure::once_into_js(|| cancel(7));
        channel.port1().set_onmessage(Some(heard.unchecked_ref()));
        channel.port2().post_message(&JsValue::NULL).expect("null can be posted");
        let (mut cancelled, mut other) = (Breather::new(7), Breather::new(8));
        let start = super::super::now_ms();
        let mut outcome = Ok(());
        while outcome.is_ok() && super::super::now_ms() - start < 5000.0 {
            outcome = cancelled.breathe().await;
        }
        assert_eq!(outcome.map_err(|error| error.code), Err("cancelled".to_owned()));
        assert!(other.breathe().await.is_ok());
        forget(7);
        assert!(check(7).is_ok());
    }
}
