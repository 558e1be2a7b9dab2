package main

import (
	"strings"
	"testing"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/proxytest"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// The SDK's emulator runs the filter natively. `weir filter test` runs tests/cases.json as well, through the module in the production host.
func TestPathsAreRefusedAndOtherAnswersMarked(t *testing.T) {
	options := proxytest.NewEmulatorOption().WithPluginContext(newPlugin).
		WithPluginConfiguration([]byte(`{"deny": ["/admin"], "greeting": "hi"}`))
	host, reset := proxytest.NewHostEmulator(options)
	defer reset()
	if host.StartPlugin() != types.OnPluginStartStatusOK {
		t.Fatal("the configuration was refused")
	}

	refused := host.InitializeHttpContext()
	if host.CallOnRequestHeaders(refused, [][2]string{{":path", "/admin/users"}}, true) != types.ActionPause {
		t.Error("/admin went on")
	}
	if answer := host.GetSentLocalResponse(refused); answer == nil || answer.StatusCode != 403 {
		t.Errorf("/admin was answered with %v", answer)
	}

	passed := host.InitializeHttpContext()
	if host.CallOnRequestHeaders(passed, [][2]string{{":path", "/"}}, true) != types.ActionContinue {
		t.Error("/ was held")
	}
	host.CallOnResponseHeaders(passed, [][2]string{{":status", "200"}}, true)
	marked := false
	for _, header := range host.GetCurrentResponseHeaders(passed) {
		marked = marked || header == [2]string{"x-my-filter", "hi"}
	}
	if !marked {
		t.Error("the answer is not marked")
	}
}

func TestAMistakeInTheConfigurationIsNamed(t *testing.T) {
	if _, err := parse([]byte(`{"denny": []}`)); err == nil || !strings.Contains(err.Error(), "denny") {
		t.Errorf("refused with %v", err)
	}
}
