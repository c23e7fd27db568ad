//! The slow line itself: carries packets between two TUN devices, each way with a rate, a bounded queue that drops what comes
//! when it is full, and a delay. It refuses to know what is in a packet.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::wan::{FAR_DEVICE, Line, NEAR_DEVICE};

/// Packets are taken up and let go at most this often, which spares most wake-ups. It adds half of itself to the delay.
const TICK: Duration = Duration::from_micros(200);

/// Packets taken up at a time.
const BATCH: usize = 128;

/// So that a saturated machine doesn't lengthen the line.
const NICE: i32 = -15;

/// Makes the two devices in this namespace, says so on standard output, and carries packets for ever.
///
/// # Errors
/// When the devices can't be made.
pub(crate) fn run(line: Line) -> Result<()> {
    let (near, far) = (device(NEAR_DEVICE)?, device(FAR_DEVICE)?);
    println!("ready");
    io::stdout().flush()?;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| Direction::new(&near, &far, line).run());
        Direction::new(&far, &near, line).run()?;
        up.join().map_err(|_| io::Error::other("the other direction panicked"))?
    })
    .context("carrying packets")
}

fn device(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).enable(false).build_sync();
    let device = device.with_context(|| format!("making the TUN device {name}"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// One way of the line.
struct Direction<'a> {
    from: &'a SyncDevice,
    to: &'a SyncDevice,
    line: Line,
    /// The packet just taken up.
    packet: Vec<u8>,
    /// When the last packet will have been put onto the line.
    free: Instant,
    /// Packets on their way, by when they arrive.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// Buffers of packets that have arrived.
    spare: Vec<Vec<u8>>,
}

impl<'a> Direction<'a> {
    fn new(from: &'a SyncDevice, to: &'a SyncDevice, line: Line) -> Self {
        let packet = vec![0; line.mtu.into()];
        Self { from, to, line, packet, free: Instant::now(), under_way: VecDeque::new(), spare: Vec::new() }
    }

    fn run(mut self) -> io::Result<()> {
        // Without the privilege, figures on a saturated machine are worse.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        loop {
            self.take_up()?;
            self.let_go();
            self.wait()?;
        }
    }

    fn take_up(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.from.recv(&mut self.packet) {
                Ok(bytes) => self.enqueue(bytes, Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The packet waits for those before it, takes its time to be put onto the line, and then the line's delay; or there is
    /// no room for it.
    fn enqueue(&mut self, bytes: usize, now: Instant) {
        let starts = self.free.max(now);
        if starts - now > self.line.longest_wait() {
            return;
        }
        self.free = starts + self.line.takes(bytes);
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(&self.packet[..bytes]);
        self.under_way.push_back((self.free + self.line.delay(), packet));
    }

    fn let_go(&mut self) {
        let now = Instant::now();
        while let Some((_, packet)) = self.under_way.pop_front_if(|(arrives, _)| *arrives <= now) {
            // A device that is being taken away takes no packets; its end is the line's.
            let _ = self.to.send(&packet);
            self.spare.push(packet);
        }
    }

    fn wait(&self) -> io::Result<()> {
        let Some((next, _)) = self.under_way.front() else {
            poll(&mut [PollFd::new(self.from, PollFlags::IN)], None)?;
            return Ok(());
        };
        let time = next.saturating_duration_since(Instant::now()).min(TICK).max(TICK / 4);
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        poll(&mut [], Some(&time))?;
        Ok(())
    }
}
