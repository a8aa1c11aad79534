# Run the benchmark in a container.
#
#   docker build --tag dlrm .
#   docker run --rm dlrm                                                    the synthetic sample on the CPU
#   docker run --rm --gpus=all --volume=/data/criteo:/data --volume=$PWD/results:/results \
#       --env=DATADIR=/data --env=LOGDIR=/results dlrm --use-gpu            the Criteo data on a GPU
FROM python:3.11-slim

WORKDIR /dlrm
ENV DLRM_PYTHON=/usr/local/bin/python \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

COPY requirements.txt ./
RUN pip install --requirement requirements.txt

COPY . ./
RUN pip install --no-deps --no-build-isolation --editable .

ENTRYPOINT ["./run_and_time.sh"]
