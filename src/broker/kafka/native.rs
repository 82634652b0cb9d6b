//! What librdkafka can and the `rdkafka` crate has no call for needs a hand with C.

use std::ffi::CStr;
use std::ptr::NonNull;

use rdkafka::bindings as native;
use rdkafka::types::RDKafkaRespErr;

/// A pointer of librdkafka's that is given back with its own function.
pub(super) struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    pub(super) fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Owned<T>> {
        NonNull::new(pointer).map(|pointer| Owned(pointer, destroy))
    }

    pub(super) fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka with this function to give it back, and is given back once.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// librdkafka's words for an error.
pub(super) fn text(error: RDKafkaRespErr) -> String {
    // SAFETY: librdkafka has a constant text for every code.
    unsafe { CStr::from_ptr(native::rd_kafka_err2str(error)).to_string_lossy().into_owned() }
}
