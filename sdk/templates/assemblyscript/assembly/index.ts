// The my-filter filter: refuses requests by path, and marks the answers to all others.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  FilterHeadersStatusValues,
  GrpcStatusValues,
  LogLevelValues,
  RootContext,
  log,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";
import { BufferTypeValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";

class Root extends RootContext {
  deny: string[] = [];

  // What the operator writes: paths, separated by blanks. Read by hand, because the SDK's own function passes the size as an address.
  onConfigure(size: u32): bool {
    const text = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, size));
    const words = text.split(" ");
    for (let i = 0; i < words.length; i++) {
      if (words[i].length == 0) continue;
      if (!words[i].startsWith("/")) {
        log(LogLevelValues.critical, "configuration refused: " + words[i] + " is no path");
        return false;
      }
      this.deny.push(words[i]);
    }
    return true;
  }

  createContext(id: u32): Context {
    return new Stream(id, this);
  }
}

class Stream extends Context {
  constructor(id: u32, root: Root) {
    super(id, root);
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const path = stream_context.headers.request.get(":path");
    const deny = (this.root_context as Root).deny;
    for (let i = 0; i < deny.length; i++) {
      if (path.startsWith(deny[i])) {
        send_local_response(403, "", String.UTF8.encode("denied\n"), [], GrpcStatusValues.InvalidCode);
        return FilterHeadersStatusValues.StopIteration;
      }
    }
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    stream_context.headers.response.replace("x-my-filter", "hello");
    return FilterHeadersStatusValues.Continue;
  }
}

// The binding's rootId chooses the factory.
registerRootContext((id: u32) => new Root(id), "");
