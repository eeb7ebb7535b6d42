//! Traces of drivers, for builds with the feature `trace`: what passes between the driver and its device goes into the memory that the
//! device manager gave for it, and which it has when the driver is no more.

use core::fmt;

use ddk_instrument::{Recording, Sink, Trace};
use proto::crash_report::trace::Writer;
use rt::{Vmo, startup};

/// An area as `proto::crash_report::trace` lays it out. It is written by calls: what is in it does not depend on what
/// becomes of this process's memory.
struct Area {
    vmo: Vmo,
    writer: Writer,
}

fn write(vmo: &Vmo) -> impl FnMut(usize, &[u8]) {
    |at, bytes| {
        // Nobody could be told of a failure; what is missing is seen by whoever reads it.
        let _ = vmo.write(at as u64, bytes);
    }
}

impl Sink for Area {
    fn record(&mut self, entry: &[u8], text: fmt::Arguments<'_>) {
        self.writer.record(entry, text, write(&self.vmo));
    }
}

/// The trace that is wanted of this process, if one is.
pub(crate) fn wanted() -> Option<alloc::sync::Arc<Trace>> {
    let vmo: Vmo = startup::take("trace")?;
    rt::info!("everything that passes between this driver and its device is recorded");
    let writer = Writer::new(&Recording::OPEN_HEAD, write(&vmo));
    Some(Trace::to(Area { vmo, writer }, rt::thread::own))
}
