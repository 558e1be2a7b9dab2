// The contract of tests/guests/README.md on the AssemblyScript SDK.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  Counter,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  Gauge,
  GrpcStatusValues,
  HeaderPair,
  Headers,
  Histogram,
  LogLevelValues,
  RootContext,
  WasmResultValues,
  continue_request,
  log,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";
import {
  BufferTypeValues,
  get_buffer_bytes,
  get_property,
  set_property,
  set_tick_period_milliseconds,
} from "@solo-io/proxy-runtime/runtime";
import { getMetric, getShared, setBuffer, setShared } from "./host";

class Metrics {
  requests: Counter = new Counter("guest_requests");
  ticks: Counter = new Counter("guest_ticks");
  logs: Counter = new Counter("guest_logs");
  gauge: Gauge = new Gauge("guest_gauge");
  histogram: Histogram = new Histogram("guest_hist");
}

class Root extends RootContext {
  metrics: Metrics | null = null;

  // Not the SDK's own: that one passes the configuration's size as the address for its length.
  onConfigure(size: u32): bool {
    const text = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, size));
    if (text == "refuse") return false;
    if (text.includes("tick")) set_tick_period_milliseconds(100);
    this.metrics = new Metrics();
    return true;
  }

  onTick(): void {
    this.metrics!.ticks.increment(1);
  }

  createContext(id: u32): Context {
    return new Stream(id, this);
  }
}

class Stream extends Context {
  path: string = "";

  constructor(id: u32, root: Root) {
    super(id, root);
  }

  metrics(): Metrics {
    return (this.root_context as Root).metrics!;
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const request = stream_context.headers.request;
    this.path = request.get(":path");
    if (this.path == "/headers") {
      const value = request.get("x-in");
      if (value.length > 0) request.add("x-out", value);
      request.remove("x-drop");
      request.replace("x-set", "set");
    } else if (this.path == "/local") {
      const headers: Headers = [pair("x-local", "yes")];
      send_local_response(418, "", String.UTF8.encode("teapot"), headers, GrpcStatusValues.InvalidCode);
      return FilterHeadersStatusValues.StopIteration;
    } else if (this.path == "/callout") {
      this.callout();
      return FilterHeadersStatusValues.StopIteration;
    } else if (this.path == "/shared") {
      const hits = getShared("hits");
      const before: i64 = hits.value.length > 0 ? I64.parseInt(hits.value) : 0;
      const next = (before + 1).toString();
      if (setShared("hits", next, hits.cas)) request.add("x-hits", next);
    } else if (this.path == "/metrics") {
      const metrics = this.metrics();
      metrics.requests.increment(1);
      metrics.gauge.record(metrics.gauge.metric_id, 7);
      metrics.histogram.record(metrics.histogram.metric_id, 42);
      request.add("x-count", getMetric(metrics.requests.metric_id).toString());
    } else if (this.path == "/property") {
      request.add("x-source", String.UTF8.decode(get_property("source\0address")));
      set_property("guest\0note", String.UTF8.encode("hi"));
    } else if (this.path == "/trap") {
      throw new Error("asked to trap");
    } else if (this.path == "/log") {
      log(LogLevelValues.info, "hello from guest");
    }
    return FilterHeadersStatusValues.Continue;
  }

  onRequestBody(size: usize, end: bool): FilterDataStatusValues {
    if (this.path != "/body") return FilterDataStatusValues.Continue;
    if (!end) return FilterDataStatusValues.StopIterationAndBuffer;
    const body = get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, size as u32);
    const text = String.UTF8.decode(body) + "|" + body.byteLength.toString();
    setBuffer(BufferTypeValues.HttpRequestBody, 0, size as u32, String.UTF8.encode(text));
    return FilterDataStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    if (this.path == "/headers") stream_context.headers.response.add("x-guest", "as");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(size: usize, end: bool): FilterDataStatusValues {
    if (this.path != "/body") return FilterDataStatusValues.Continue;
    if (!end) return FilterDataStatusValues.StopIterationAndBuffer;
    setBuffer(BufferTypeValues.HttpResponseBody, size as u32, 0, String.UTF8.encode("|resp"));
    return FilterDataStatusValues.Continue;
  }

  onLog(): void {
    this.metrics().logs.increment(1);
  }

  callout(): void {
    const headers: Headers = [pair(":method", "GET"), pair(":path", "/check"), pair(":authority", "auth")];
    const none = new ArrayBuffer(0);
    const sent = this.root_context.httpCall("auth", headers, none, [], 1000, this, onReply);
    if (sent != WasmResultValues.Ok) refuse(String.UTF8.encode("no reply"));
  }
}

function onReply(stream: Context, headers: u32, size: usize, trailers: u32): void {
  if (headers == 0) {
    refuse(String.UTF8.encode("no reply"));
    return;
  }
  const reply = stream_context.headers.http_callback;
  if (reply.get(":status") == "200") {
    stream_context.headers.request.replace("x-auth", reply.get("x-user"));
    continue_request();
    return;
  }
  refuse(get_buffer_bytes(BufferTypeValues.HttpCallResponseBody, 0, size as u32));
}

function refuse(body: ArrayBuffer): void {
  send_local_response(403, "", body, [], GrpcStatusValues.InvalidCode);
}

function pair(name: string, value: string): HeaderPair {
  return new HeaderPair(String.UTF8.encode(name), String.UTF8.encode(value));
}

// The binding's root id chooses the factory; the tests bind this module without one.
registerRootContext((id: u32) => new Root(id), "");
