// The contract of tests/guests/README.md on the Go SDK, compiled by Go's own compiler for wasip1 as a reactor.
package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// A reactor's main never runs.
func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type metrics struct {
	requests, ticks, logs proxywasm.MetricCounter
	gauge                 proxywasm.MetricGauge
	histogram             proxywasm.MetricHistogram
}

type plugin struct {
	types.DefaultPluginContext
	metrics metrics
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	// An empty configuration is "not found" to this SDK.
	text, err := proxywasm.GetPluginConfiguration()
	if err != nil && err != types.ErrorStatusNotFound {
		panic(err)
	}
	if string(text) == "refuse" {
		return types.OnPluginStartStatusFailed
	}
	if strings.Contains(string(text), "tick") {
		must(proxywasm.SetTickPeriodMilliSeconds(100))
	}
	p.metrics = metrics{
		requests:  proxywasm.DefineCounterMetric("guest_requests"),
		ticks:     proxywasm.DefineCounterMetric("guest_ticks"),
		logs:      proxywasm.DefineCounterMetric("guest_logs"),
		gauge:     proxywasm.DefineGaugeMetric("guest_gauge"),
		histogram: proxywasm.DefineHistogramMetric("guest_hist"),
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) OnTick() { p.metrics.ticks.Increment(1) }

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &stream{metrics: &p.metrics}
}

type stream struct {
	types.DefaultHttpContext
	metrics *metrics
	path    string
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	s.path, _ = proxywasm.GetHttpRequestHeader(":path")
	switch s.path {
	case "/headers":
		if value, err := proxywasm.GetHttpRequestHeader("x-in"); err == nil {
			must(proxywasm.AddHttpRequestHeader("x-out", value))
		}
		must(proxywasm.RemoveHttpRequestHeader("x-drop"))
		must(proxywasm.ReplaceHttpRequestHeader("x-set", "set"))
	case "/local":
		must(proxywasm.SendHttpResponse(418, [][2]string{{"x-local", "yes"}}, []byte("teapot"), -1))
		return types.ActionPause
	case "/callout":
		s.callout()
		return types.ActionPause
	case "/shared":
		s.shared()
	case "/metrics":
		s.count()
	case "/property":
		if source, err := proxywasm.GetProperty([]string{"source", "address"}); err == nil {
			must(proxywasm.AddHttpRequestHeader("x-source", string(source)))
		}
		must(proxywasm.SetProperty([]string{"guest", "note"}, []byte("hi")))
	case "/trap":
		panic("asked to trap")
	case "/log":
		proxywasm.LogInfo("hello from guest")
	}
	return types.ActionContinue
}

func (s *stream) OnHttpRequestBody(size int, end bool) types.Action {
	if s.path != "/body" {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	body, err := proxywasm.GetHttpRequestBody(0, size)
	if err != nil && err != types.ErrorStatusNotFound {
		panic(err)
	}
	must(proxywasm.ReplaceHttpRequestBody(fmt.Appendf(body, "|%d", len(body))))
	return types.ActionContinue
}

func (s *stream) OnHttpResponseHeaders(int, bool) types.Action {
	if s.path == "/headers" {
		must(proxywasm.AddHttpResponseHeader("x-guest", "go"))
	}
	return types.ActionContinue
}

func (s *stream) OnHttpResponseBody(_ int, end bool) types.Action {
	if s.path != "/body" {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	must(proxywasm.AppendHttpResponseBody([]byte("|resp")))
	return types.ActionContinue
}

func (s *stream) OnHttpStreamDone() { s.metrics.logs.Increment(1) }

func (s *stream) callout() {
	headers := [][2]string{{":method", "GET"}, {":path", "/check"}, {":authority", "auth"}}
	if _, err := proxywasm.DispatchHttpCall("auth", headers, nil, nil, 1000, s.reply); err != nil {
		refuse([]byte("no reply"))
	}
}

func (s *stream) reply(headers, size, _ int) {
	if headers == 0 {
		refuse([]byte("no reply"))
		return
	}
	reply, err := proxywasm.GetHttpCallResponseHeaders()
	must(err)
	if first(reply, ":status") == "200" {
		must(proxywasm.ReplaceHttpRequestHeader("x-auth", first(reply, "x-user")))
		must(proxywasm.ResumeHttpRequest())
		return
	}
	body, err := proxywasm.GetHttpCallResponseBody(0, size)
	if err != nil && err != types.ErrorStatusNotFound {
		panic(err)
	}
	refuse(body)
}

func (s *stream) shared() {
	hits := 0
	value, cas, err := proxywasm.GetSharedData("hits")
	if err == nil {
		hits, _ = strconv.Atoi(string(value))
	} else if err != types.ErrorStatusNotFound {
		panic(err)
	}
	next := strconv.Itoa(hits + 1)
	if proxywasm.SetSharedData("hits", []byte(next), cas) == nil {
		must(proxywasm.AddHttpRequestHeader("x-hits", next))
	}
}

func (s *stream) count() {
	s.metrics.requests.Increment(1)
	// This SDK cannot set a gauge, only move it.
	s.metrics.gauge.Add(7 - s.metrics.gauge.Value())
	s.metrics.histogram.Record(42)
	must(proxywasm.AddHttpRequestHeader("x-count", strconv.FormatUint(s.metrics.requests.Value(), 10)))
}

func refuse(body []byte) { must(proxywasm.SendHttpResponse(403, nil, body, -1)) }

func first(headers [][2]string, name string) string {
	for _, h := range headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
