// The my-filter filter: refuses requests by path, and marks the answers to all others.
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// A reactor's main never runs.
func main() {}

func init() {
	proxywasm.SetPluginContext(newPlugin)
}

// What the operator writes.
type settings struct {
	// What a refused path begins with.
	Deny []string `json:"deny"`
	// The value of the header x-my-filter on every answer.
	Greeting string `json:"greeting"`
}

func parse(text []byte) (settings, error) {
	read := settings{Greeting: "hello"}
	if len(text) == 0 {
		return read, nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return read, fmt.Errorf("configuration refused: %w", err)
	}
	return read, nil
}

type plugin struct {
	types.DefaultPluginContext
	settings settings
}

func newPlugin(uint32) types.PluginContext { return &plugin{} }

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	// An empty configuration is "not found" to this SDK.
	text, err := proxywasm.GetPluginConfiguration()
	if err != nil && err != types.ErrorStatusNotFound {
		proxywasm.LogCriticalf("configuration: %v", err)
		return types.OnPluginStartStatusFailed
	}
	if p.settings, err = parse(text); err != nil {
		proxywasm.LogCritical(err.Error())
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &stream{settings: &p.settings}
}

type stream struct {
	types.DefaultHttpContext
	settings *settings
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	path, err := proxywasm.GetHttpRequestHeader(":path")
	if err != nil {
		return types.ActionContinue
	}
	for _, prefix := range s.settings.Deny {
		if strings.HasPrefix(path, prefix) {
			if err := proxywasm.SendHttpResponse(403, nil, []byte("denied\n"), -1); err != nil {
				proxywasm.LogCriticalf("no answer could be sent: %v", err)
			}
			return types.ActionPause
		}
	}
	return types.ActionContinue
}

func (s *stream) OnHttpResponseHeaders(int, bool) types.Action {
	if err := proxywasm.ReplaceHttpResponseHeader("x-my-filter", s.settings.Greeting); err != nil {
		proxywasm.LogWarnf("the answer is not marked: %v", err)
	}
	return types.ActionContinue
}
