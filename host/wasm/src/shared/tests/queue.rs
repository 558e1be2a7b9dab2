//! Queues: order, bounds, and who is told.

use super::*;

fn ignore() -> Notifier {
    Arc::new(|_| {})
}

/// A notifier and the count of its calls.
fn counting() -> (Notifier, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    (Arc::new(move |_| _ = counted.fetch_add(1, Ordering::Relaxed)), count)
}

fn take(queues: &Queues, id: u32) -> Result<Vec<u8>, QueueError> {
    let mut out = b"left over".to_vec();
    let result = queues.dequeue(id, &mut out);
    assert!(result.is_ok() || out.is_empty());
    result.map(|()| out)
}

fn limits(items: usize, bytes: usize) -> QueueLimits {
    QueueLimits { queues: 2, name: 4, items, bytes }
}

#[test]
fn first_in_first_out() {
    let queues = Queues::default();
    let id = queues.register("vm", "q", &ignore()).unwrap();
    for item in [&b"one"[..], b"", b"three"] {
        queues.enqueue(id, item).unwrap();
    }
    assert_eq!(take(&queues, id).unwrap(), b"one");
    assert_eq!(take(&queues, id).unwrap(), b"");
    assert_eq!(take(&queues, id).unwrap(), b"three");
    assert_eq!(take(&queues, id), Err(QueueError::Empty));
}

#[test]
fn a_name_is_one_queue_per_vm_id() {
    let queues = Queues::default();
    let id = queues.register("a", "q", &ignore()).unwrap();
    assert_ne!(id, 0);
    assert_eq!(queues.register("a", "q", &ignore()), Ok(id));
    assert_eq!(queues.resolve("a", "q"), Some(id));
    assert_eq!(queues.resolve("a", "r"), None);
    assert_eq!(queues.resolve("b", "q"), None);
    let other = queues.register("b", "q", &ignore()).unwrap();
    assert_ne!(other, id);
    for unknown in [0, 77, u32::MAX] {
        assert_eq!(queues.enqueue(unknown, b""), Err(QueueError::NotFound));
        assert_eq!(take(&queues, unknown), Err(QueueError::NotFound));
    }
}

#[test]
fn the_newest_registrant_is_told() {
    let queues = Queues::default();
    let ((first, first_count), (second, second_count)) = (counting(), counting());
    let told = || (first_count.load(Ordering::Relaxed), second_count.load(Ordering::Relaxed));
    let id = queues.register("vm", "q", &first).unwrap();
    queues.enqueue(id, b"1").unwrap();
    queues.register("vm", "q", &second).unwrap();
    queues.enqueue(id, b"2").unwrap();
    assert_eq!(told(), (1, 1));
    queues.forget_notifier("vm", &first);
    queues.enqueue(id, b"3").unwrap();
    assert_eq!(told(), (1, 2), "an older registrant that goes takes nothing from the newer");
    queues.forget_notifier("vm", &second);
    queues.enqueue(id, b"4").unwrap();
    assert_eq!(told(), (1, 2));
}

#[test]
fn an_older_registrant_is_told_again_when_the_newer_goes() {
    let queues = Queues::default();
    let ((first, first_count), (second, _)) = (counting(), counting());
    let id = queues.register("vm", "q", &first).unwrap();
    queues.register("vm", "q", &second).unwrap();
    queues.enqueue(id, b"told to the second").unwrap();
    queues.forget_notifier("vm", &second);
    assert_eq!(first_count.load(Ordering::Relaxed), 1, "of what the second left unread");
    queues.enqueue(id, b"another").unwrap();
    assert_eq!(first_count.load(Ordering::Relaxed), 2);
}

#[test]
fn the_next_registrant_hears_of_what_nobody_living_was_told() {
    let queues = Queues::default();
    let (gone, _) = counting();
    let id = queues.register("vm", "q", &gone).unwrap();
    for _ in 0..3 {
        queues.enqueue(id, b"before").unwrap();
    }
    queues.forget_notifier("vm", &gone);
    queues.enqueue(id, b"meanwhile").unwrap();
    take(&queues, id).unwrap();
    let (next, count) = counting();
    queues.register("vm", "q", &next).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 3);
    let (newer, count) = counting();
    queues.register("vm", "q", &newer).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 0, "the one before is alive and was told");
}

#[test]
fn a_notifier_may_use_the_queues() {
    let queues = Arc::new(Queues::default());
    let inner = Arc::clone(&queues);
    let got = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&got);
    let notifier: Notifier = Arc::new(move |id| inner.dequeue(id, &mut sink.lock().unwrap()).unwrap());
    let id = queues.register("vm", "q", &notifier).unwrap();
    queues.enqueue(id, b"at once").unwrap();
    assert_eq!(*got.lock().unwrap(), b"at once");
}

#[test]
fn a_full_queue_drops_its_oldest_and_counts() {
    let queues = Queues::default();
    queues.set_limits("vm", limits(3, 10));
    let id = queues.register("vm", "q", &ignore()).unwrap();
    for item in [b"1", b"2", b"3", b"4"] {
        queues.enqueue(id, item).unwrap();
    }
    assert_eq!(queues.counters("vm")[0].dropped, 1);
    queues.enqueue(id, b"nine bytes"[..9].as_ref()).unwrap();
    let counters = &queues.counters("vm")[0];
    assert_eq!((counters.depth, counters.bytes, counters.dropped), (2, 10, 3));
    assert_eq!(queues.enqueue(id, &[0; 11]), Err(QueueError::TooLarge { size: 11, max: 10 }));
    assert_eq!(take(&queues, id).unwrap(), b"4");
    assert_eq!(take(&queues, id).unwrap(), b"nine byte");
}

#[test]
fn the_number_of_queues_and_their_names_are_bounded() {
    let queues = Queues::default();
    queues.set_limits("vm", limits(1, 1));
    queues.register("vm", "a", &ignore()).unwrap();
    queues.register("vm", "b", &ignore()).unwrap();
    assert_eq!(queues.register("vm", "c", &ignore()), Err(QueueError::Full { max: 2 }));
    assert_eq!(queues.register("vm", "long!", &ignore()), Err(QueueError::TooLarge { size: 5, max: 4 }));
    queues.register("vm", "a", &ignore()).expect("an old one still opens");
    queues.register("other", "c", &ignore()).expect("another vm_id has its own bound");
}

#[test]
fn tighter_limits_reach_the_queues_that_exist() {
    let queues = Queues::default();
    let id = queues.register("vm", "q", &ignore()).unwrap();
    for item in [b"1", b"2", b"3"] {
        queues.enqueue(id, item).unwrap();
    }
    queues.set_limits("vm", limits(2, 100));
    assert_eq!(take(&queues, id).unwrap(), b"2");
    queues.set_limits("vm", limits(0, 0));
    assert_eq!(take(&queues, id), Err(QueueError::Empty));
    assert_eq!(queues.counters("vm")[0].dropped, 2);
}

#[test]
fn items_wrap_around_the_ring_unharmed() {
    let queues = Queues::default();
    queues.set_limits("vm", limits(8, 64));
    let id = queues.register("vm", "q", &ignore()).unwrap();
    for i in 0..500_usize {
        queues.enqueue(id, &vec![i as u8; i % 23]).unwrap();
        queues.enqueue(id, &vec![!i as u8; i % 7]).unwrap();
        assert_eq!(take(&queues, id).unwrap(), vec![i as u8; i % 23]);
        assert_eq!(take(&queues, id).unwrap(), vec![!i as u8; i % 7]);
    }
}

#[test]
fn many_threads_get_every_item_once_and_in_order() {
    let queues = Queues::default();
    let (notifier, told) = counting();
    let id = queues.register("vm", "q", &notifier).unwrap();
    let producing = AtomicBool::new(true);
    let taken: Vec<Vec<u32>> = thread::scope(|threads| {
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    let (mut out, mut taken) = (Vec::new(), Vec::new());
                    loop {
                        let last = !producing.load(Ordering::Acquire);
                        match queues.dequeue(id, &mut out) {
                            Ok(()) => {
                                taken.push(u32::from_le_bytes(out.as_slice().try_into().unwrap()));
                            }
                            Err(_) if last => return taken,
                            Err(_) => thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        thread::scope(|threads| {
            for producer in 0..3_u32 {
                let queues = &queues;
                threads.spawn(move || {
                    for i in 0..2000 {
                        queues.enqueue(id, &(producer << 16 | i).to_le_bytes()).unwrap();
                    }
                });
            }
        });
        producing.store(false, Ordering::Release);
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    });
    for taken in &taken {
        for producer in 0..3 {
            let own: Vec<_> = taken.iter().filter(|item| *item >> 16 == producer).collect();
            assert!(own.is_sorted(), "items of one producer change their order");
        }
    }
    let all: HashSet<_> = taken.iter().flatten().collect();
    assert_eq!((all.len(), taken.iter().map(Vec::len).sum::<usize>()), (6000, 6000));
    assert_eq!(told.load(Ordering::Relaxed), 6000);
}
