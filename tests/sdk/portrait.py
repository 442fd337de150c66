"""The vendor's Python SDK against a gate on 127.0.0.1:PORT. What it saw goes to standard output as JSON.

    portrait.py PORT each     one call of each kind
    portrait.py PORT flood    three times the cap of 20 a second, for five seconds, from six threads
    portrait.py PORT retry    40 calls at once with the SDK's own StandardRetryer, three attempts each
"""

import json
import sys
import threading
import time

from tencentcloud.bda.v20200324 import bda_client, models
from tencentcloud.common import credential, retry
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

STUDIO = ("AKIDEXAMPLESTUDIO00000000000000000001", "trial-secret-of-example-studio")
ARREARS = ("AKIDARREARS", "secret-of-arrears")
VIDEO = ("AKIDVIDEO", "secret-of-video")
IMAGE = "iVBORw0KGgo="

THREADS, CALLS_EACH, APART = 6, 50, 0.1


def client(port, key, region="ap-guangzhou", method="POST", unsigned_payload=False):
    http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{port}", reqMethod=method)
    profile = ClientProfile(httpProfile=http)
    profile.unsignedPayload = unsigned_payload
    return bda_client.BdaClient(credential.Credential(*key), region, profile)


def segment(to, image=IMAGE):
    request = models.SegmentPortraitPicRequest()
    request.Image, request.Scene = image, "GEN"
    answer = to.SegmentPortraitPic(request)
    assert answer.HasForeground is True and answer.ResultMask == IMAGE, answer
    return answer.RequestId


def segment_customized(to):
    request = models.SegmentCustomizedPortraitPicRequest()
    request.Image = IMAGE
    request.SegmentationOptions = models.SegmentationOptions()
    request.SegmentationOptions.Hair = request.SegmentationOptions.Face = True
    answer = to.SegmentCustomizedPortraitPic(request)
    assert answer.PortraitImage == IMAGE and answer.ImageRects[0].Label == "人像", answer
    return answer.RequestId


def describe(to):
    request = models.DescribeSegmentationTaskRequest()
    request.TaskID = "task-1"
    answer = to.DescribeSegmentationTask(request)
    assert answer.TaskStatus == "PROCESSING", answer
    return answer.RequestId


def own_account(port, key):
    """The own actions through the SDK's client for any action: what stands in the envelope, by name."""
    http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{port}")
    profile = ClientProfile(httpProfile=http)
    to = CommonClient("bda", "2020-03-24", credential.Credential(*key), "ap-anywhere", profile)
    asked = {"Quota": {}, "Usage": {"By": "key"}, "Statements": {}, "Records": {}}
    answers = {name: to.call_json("Describe" + name, body)["Response"][name] for name, body in asked.items()}
    try:
        to.call_json("DescribeStatement", {"Month": "2100-12"})
    except TencentCloudSDKException as error:
        answers["no statement"] = error.get_code()
    return answers


def segment_too_large(to):
    return segment(to, "too large")


def told(call, to):
    """The request id of a success, else the code of the SDK's exception. Anything else is a bug."""
    try:
        return {"ok": call(to)}
    except TencentCloudSDKException as error:
        return {"code": error.get_code(), "message": error.get_message(), "id": error.get_request_id()}


def each(port):
    wrong = (STUDIO[0], "not-the-secret")
    unknown = ("AKIDNOBODY", "any")
    return {
        "SegmentPortraitPic": told(segment, client(port, STUDIO)),
        "SegmentCustomizedPortraitPic": told(segment_customized, client(port, STUDIO)),
        "parameters in the query": told(segment, client(port, STUDIO, method="GET")),
        "unsigned payload": told(segment, client(port, STUDIO, unsigned_payload=True)),
        "DescribeSegmentationTask": told(describe, client(port, STUDIO)),
        "wrong secret": told(segment, client(port, wrong)),
        "unknown id": told(segment, client(port, unknown)),
        "in arrears": told(segment, client(port, ARREARS)),
        "never opened": told(segment, client(port, VIDEO)),
        "free of charge": told(describe, client(port, VIDEO)),
        "another region": told(segment, client(port, STUDIO, region="ap-nowhere")),
        "no region": told(segment, client(port, STUDIO, region=None)),
        "image too large": told(segment_too_large, client(port, STUDIO)),
        "own account": own_account(port, STUDIO),
    }


def flood(port):
    begins, answers = time.monotonic() + 0.2, []

    def caller(index):
        to = client(port, STUDIO)
        for number in range(CALLS_EACH):
            due = begins + number * APART + index * APART / THREADS
            time.sleep(max(0, due - time.monotonic()))
            # Both paid actions by turns: they share one cap.
            answers.append(told(segment if number % 2 else segment_customized, to))

    threads = [threading.Thread(target=caller, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == THREADS * CALLS_EACH, "a client met something that is no SDK exception"
    return answers


def retried(port):
    answers, together = [], threading.Barrier(2 * 20)

    def caller():
        to = client(port, STUDIO)
        # Its own waits are 1, 2 and 4 s; here no attempt shares a second with the one before.
        to.profile.retryer = retry.StandardRetryer(max_attempts=3, backoff_fn=lambda attempt: 1.5)
        together.wait()
        answers.append(told(segment, to))

    threads = [threading.Thread(target=caller) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


if __name__ == "__main__":
    kind = {"each": each, "flood": flood, "retry": retried}[sys.argv[2]]
    json.dump(kind(int(sys.argv[1])), sys.stdout)
