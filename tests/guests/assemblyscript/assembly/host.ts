// Host functions this SDK (0.1.8) lacks or declares wrongly: its `set_buffer_bytes` is imported under another
// function's name, its shared-data calls pass the wrong pointers, and its `get_metric` records instead of reading.
// A filter that needs them declares them itself, as here.

import { free } from "@solo-io/proxy-runtime/malloc";

// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function proxy_set_buffer_bytes(kind: u32, start: u32, length: u32, data: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_shared_data")
declare function proxy_get_shared_data(key: usize, keySize: usize, data: usize, size: usize, cas: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_shared_data")
declare function proxy_set_shared_data(key: usize, keySize: usize, data: usize, size: usize, cas: u32): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_metric")
declare function proxy_get_metric(metric: u32, value: usize): u32;

// Where the host writes its answers.
class Answer {
  data: usize;
  size: usize;
  cas: u32;
  metric: u64;
}

const answer = new Answer();

function at(offset: usize): usize {
  return changetype<usize>(answer) + offset;
}

/** Replaces `length` bytes of a body from `start` on. */
export function setBuffer(kind: u32, start: u32, length: u32, value: ArrayBuffer): void {
  const status = proxy_set_buffer_bytes(kind, start, length, changetype<usize>(value), value.byteLength);
  assert(status == 0, "proxy_set_buffer_bytes");
}

/** A shared value and the number by which to write it back. */
export class Shared {
  constructor(public value: string, public cas: u32) {}
}

/** The shared value of a key, or nothing and 0. */
export function getShared(key: string): Shared {
  const name = String.UTF8.encode(key);
  const status = proxy_get_shared_data(
    changetype<usize>(name),
    name.byteLength,
    at(offsetof<Answer>("data")),
    at(offsetof<Answer>("size")),
    at(offsetof<Answer>("cas"))
  );
  if (status != 0 || answer.size == 0) return new Shared("", 0);
  const value = changetype<ArrayBuffer>(answer.data);
  // The host's allocation holds one reference; `value` holds the other until this returns.
  free(answer.data);
  return new Shared(String.UTF8.decode(value), answer.cas);
}

/** Writes a shared value back; false when another was faster. */
export function setShared(key: string, value: string, cas: u32): bool {
  const name = String.UTF8.encode(key);
  const text = String.UTF8.encode(value);
  return (
    proxy_set_shared_data(changetype<usize>(name), name.byteLength, changetype<usize>(text), text.byteLength, cas) == 0
  );
}

/** The current value of a metric. */
export function getMetric(metric: u32): u64 {
  assert(proxy_get_metric(metric, at(offsetof<Answer>("metric"))) == 0, "proxy_get_metric");
  return answer.metric;
}
