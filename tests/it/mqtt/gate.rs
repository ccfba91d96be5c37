//! A TCP relay that can be shut, cut, and made half-open: connections that stand and carry nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssds::clock::{Clock, SystemClock};

/// See the module. Its threads end when it goes.
pub struct Gate {
    /// Where the station connects.
    pub port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    /// 0: shut.
    target: AtomicU16,
    pairs: Mutex<Vec<Pair>>,
    ended: AtomicBool,
}

struct Pair {
    near: TcpStream,
    far: TcpStream,
    dead: Arc<AtomicBool>,
}

impl Gate {
    /// Listens; shut at first.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner { target: AtomicU16::new(0), pairs: Mutex::new(Vec::new()), ended: AtomicBool::new(false) });
        let own = Arc::clone(&inner);
        thread("gate", move || {
            for near in listener.incoming().map_while(Result::ok) {
                if own.ended.load(Ordering::SeqCst) {
                    break;
                }
                own.admit(near);
            }
        });
        Self { port, inner }
    }

    /// Lets new connections through to `target`.
    pub fn open(&self, target: u16) {
        self.inner.target.store(target, Ordering::SeqCst);
    }

    /// Closes new connections at once; standing ones stay.
    pub fn shut(&self) {
        self.inner.target.store(0, Ordering::SeqCst);
    }

    /// Cuts the standing connections on both sides.
    pub fn cut(&self) {
        for pair in self.inner.pairs.lock().unwrap().drain(..) {
            let _ = (pair.near.shutdown(Shutdown::Both), pair.far.shutdown(Shutdown::Both));
        }
    }

    /// Standing connections carry nothing any more, in either direction, and nobody is told.
    pub fn half_open(&self) {
        for pair in self.inner.pairs.lock().unwrap().iter() {
            pair.dead.store(true, Ordering::SeqCst);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Inner {
    fn admit(self: &Arc<Self>, near: TcpStream) {
        let target = self.target.load(Ordering::SeqCst);
        if target == 0 {
            return;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { return };
        let dead = Arc::new(AtomicBool::new(false));
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.set_nodelay(true).unwrap();
            let (from, to, dead, own) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&dead), Arc::clone(self));
            thread("gate-copy", move || own.copy(from, to, &dead));
        }
        self.pairs.lock().unwrap().push(Pair { near, far, dead });
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, dead: &AtomicBool) {
        from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if dead.load(Ordering::SeqCst) {
                // Neither read nor closed, until the other end gives up or the test is over.
                if self.ended.load(Ordering::SeqCst) {
                    break;
                }
                SystemClock.sleep(Duration::from_millis(20));
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).unwrap();
}
